"""Owns the pages of the shop and of the quotes, and their feeds: what never changes.

Runs in the demo site's process.
"""

import json
from urllib.parse import quote

from vscrapy_magic.demo import feeds, pages, words
from vscrapy_magic.demo.answers import (
    JSON,
    PLAIN,
    XML,
    Handler,
    NotFoundError,
    base_of,
    not_allowed,
    number_in,
    page_count,
    redirect,
)
from vscrapy_magic.demo.catalogue import PER_QUOTES_PAGE, Book, Catalogue
from vscrapy_magic.demo.connection import Reply, Request

WINDOW = 8  # books on the front page


class Shop:
    """Handlers over one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._categories = frozenset(slug for slug, _ in words.CATEGORIES)
        self._authors = {pages.author_slug(name): name for name in words.AUTHORS}

    @property
    def fixed(self) -> dict[str, Handler]:
        """Handlers of GET whose answers depend on target and Host alone, by first segment."""
        return {
            "": self._front,
            "catalogue": self._listing,
            "category": self._category,
            "book": self._book,
            "old-book": self._old_book,
            "meta-refresh": self._meta_refresh,
            "quotes": self._quotes,
            "robots.txt": lambda request: Reply(feeds.robots(base_of(request)), content_type=PLAIN),
            "sitemap.xml": self._sitemap,
            "feed.xml": self._feed_xml,
            "feed.csv": self._feed_csv,
        }

    @property
    def live(self) -> dict[str, Handler]:
        return {"api": self._api}

    def _front(self, request: Request) -> Reply:
        if request.segments:
            raise NotFoundError
        return Reply(pages.front(self._catalogue.page(1)[:WINDOW]))

    def _listing(self, request: Request) -> Reply:
        count = self._catalogue.page_count
        page = number_in(request.query.get("page", "1"), count)
        return Reply(pages.catalogue(self._catalogue.page(page), page, count))

    def _category(self, request: Request) -> Reply:
        match request.segments:
            case (_, slug):
                text = "1"
            case (_, slug, "page", text):
                pass
            case _:
                raise NotFoundError
        if slug not in self._categories:
            raise NotFoundError
        count = self._catalogue.category_page_count(slug)
        page = number_in(text, count)
        return Reply(pages.category(slug, self._catalogue.category_page(slug, page), page, count))

    def _book(self, request: Request) -> Reply:
        shown = self._asked_book(request)
        return Reply(pages.book(shown, [self._catalogue.book(n) for n in shown.related]))

    def _asked_book(self, request: Request) -> Book:
        match request.segments:
            case (*_, text):
                return self._catalogue.book(number_in(text, self._catalogue.size))
        raise NotFoundError

    def _old_book(self, request: Request) -> Reply:
        return redirect(self._new_place(request), status=301)

    def _meta_refresh(self, request: Request) -> Reply:
        return Reply(pages.meta_refresh(self._new_place(request)))

    def _new_place(self, request: Request) -> str:
        _, mark, query = request.target.partition("?")
        return f"/book/{self._asked_book(request).number}{mark}{query}"

    def _quotes(self, request: Request) -> Reply:
        tag: str | None = None
        text = "1"
        match request.segments[1:]:
            case ():
                pass
            case ("page", text):
                pass
            case ("tag", tag):
                pass
            case ("tag", tag, "page", text):
                pass
            case ("author", slug) if slug in self._authors:
                return Reply(pages.author(self._authors[slug]))
            case _:
                raise NotFoundError
        found = self._catalogue.quotes(tag)
        count = page_count(len(found), PER_QUOTES_PAGE)
        page = number_in(text, count)
        first = (page - 1) * PER_QUOTES_PAGE
        pattern = "/quotes/page/{}/" if tag is None else f"/quotes/tag/{quote(tag)}/page/{{}}/"
        return Reply(pages.quotes(found[first : first + PER_QUOTES_PAGE], pattern, page, count))

    def _sitemap(self, request: Request) -> Reply:
        return Reply(feeds.sitemap(base_of(request), self._catalogue.size), content_type=XML)

    def _feed_xml(self, request: Request) -> Reply:
        return Reply(feeds.xml_feed(base_of(request), self._in_print()), content_type=XML)

    def _feed_csv(self, request: Request) -> Reply:
        body = feeds.csv_feed(base_of(request), self._in_print())
        return Reply(body, content_type="text/csv; charset=utf-8")

    def _in_print(self) -> list[Book]:
        last = min(self._catalogue.listed, feeds.FEED_BOUND)
        return [self._catalogue.book(number) for number in range(1, last + 1)]

    def _api(self, request: Request) -> Reply:
        catalogue = self._catalogue
        match request.segments[1:]:
            case ("books",):
                page = number_in(request.query.get("page", "1"), catalogue.page_count)
                body = feeds.api_page(
                    catalogue.page(page), page, catalogue.page_count, catalogue.listed
                )
                return Reply(body, content_type=JSON)
            case ("books", _):
                shown = feeds.api_book(self._asked_book(request))
                return Reply(feeds.json_bytes(shown), content_type=JSON)
            case ("basket",):
                return self._basket(request)
        raise NotFoundError

    def _basket(self, request: Request) -> Reply:
        """Prices the books whose numbers are POSTed as `{"books": [1, 2]}`."""
        if request.method != "POST":
            return not_allowed(request, "POST")
        try:
            numbers = [
                number_in(str(number), self._catalogue.size)
                for number in json.loads(request.body)["books"]
            ]
        except (ValueError, TypeError, KeyError):
            body = feeds.json_bytes({"error": 'send {"books": [number, ...]}'})
            return Reply(body, 400, JSON)
        pence = sum(self._catalogue.book(number).price_pence for number in numbers)
        answer = {"books": len(numbers), "total": f"{pence // 100}.{pence % 100:02d}"}
        return Reply(feeds.json_bytes(answer), content_type=JSON)
