"""Spiders that nobody here wrote: where each is found, and what is put in place of its hosts.

Whole spiders; `parts.py`, `items.py`, `methods.py` and `fragments.py` have what needs a spider
around it, and `left_out.py` what cannot run, and why. Hosts are replaced mechanically. Where a
documented example leaves something to its reader (a name, `pass  # ... scrape shop here ...`), that
is filled in, and listed here.
"""

import subprocess
import sys
from pathlib import Path

from tests.others import items
from tests.others.documents import Documents
from tests.others.example import Example, Made, Pairs, replaced
from tests.others.fragments import FRAGMENTS
from tests.others.methods import METHODS
from tests.others.parts import COMPONENTS

# The module that documented examples import their items from.
ITEMS = """
from dataclasses import dataclass
import scrapy
from scrapy import Field, Item

class MyItem(Item):
    title = Field()

@dataclass
class TestItem:
    id: str = ""
    name: str = ""
    description: str = ""

@dataclass
class BookItem:
    title: str
    price: float

class Product(scrapy.Item):
    name = scrapy.Field()
    price = scrapy.Field()
    stock = scrapy.Field()
    last_updated = scrapy.Field()
"""
# Modules of the same project that are examples themselves.
MODULES = {
    "pipelines.py": ("topics/settings", "Missing price data"),
    "ItemLoaders.py": (
        "topics/loaders",
        r"default_output_processor = TakeFirst\(\)\n\n    name_in",
    ),
}
XML = "def remove_cdata(text):\n    return text.upper()\n"
OLDEST = "2.13.4"  # its documentation logs in with FormRequest.from_response

TUTORIAL: Pairs = (("https://quotes.toscrape.com", "{demo}/quotes"),)
BOOKS: Pairs = (("https://books.toscrape.com", "{demo}"),)
EXAMPLE: Pairs = (
    (r"https?://(www\.)?example\.(com|org)", "{pages}"),
    (r'allowed_domains = \["example\.com"\]', 'allowed_domains = ["127.0.0.1"]'),
    (
        r"pass  # \.\.\. scrape \w+ here \.\.\.|pass  # \.\.\. scrape \w+ \.\.\.",
        'yield {{"url": response.url}}',
    ),
    (r"(class MySpider\(SitemapSpider\):\n)", r'\1    name = "sitemap"\n'),
)


EXAMPLES = (
    Example("overview", "intro/overview", "class QuotesSpider", "QuotesSpider", TUTORIAL),
    Example(
        "save pages",
        "intro/tutorial",
        "Saved file",
        "QuotesSpider",
        TUTORIAL,
        as_file=True,
    ),
    Example(
        "save pages of start_urls",
        "intro/tutorial",
        r"(?s)start_urls.*write_bytes",
        "QuotesSpider",
        TUTORIAL,
    ),
    Example("items", "intro/tutorial", r'(?s)page/2/".*div\.quote', "QuotesSpider", TUTORIAL),
    Example("urljoin", "intro/tutorial", r"def(?s:.*)urljoin", "QuotesSpider", TUTORIAL),
    Example(
        "follow",
        "intro/tutorial",
        r"(?s)start_urls.*response\.follow\(next_page, callback",
        "QuotesSpider",
        TUTORIAL,
        as_file=True,
    ),
    Example(
        "follow_all",
        "intro/tutorial",
        "class AuthorSpider",
        "AuthorSpider",
        TUTORIAL,
        as_file=True,
    ),
    Example(
        "argument",
        "intro/tutorial",
        r'getattr\(self, "tag"',
        "QuotesSpider",
        TUTORIAL,
        args={"tag": "humor"},
        as_file=True,
    ),
    Example(
        "state on self",
        "topics/developer-tools",
        "class QuoteSpider",
        "QuoteSpider",
        (
            ("https://quotes.toscrape.com", "{pages}"),
            (r'"quotes\.toscrape\.com"', '"127.0.0.1"'),
        ),
        as_file=True,
    ),
    Example(
        "one awaited request",
        "topics/coroutines",
        "class SingleRequestSpider",
        "SingleRequestSpider",
        EXAMPLE,
    ),
    Example(
        "several awaited requests",
        "topics/coroutines",
        "class MultipleRequestsSpider",
        "MultipleRequestsSpider",
        EXAMPLE,
        as_file=True,
    ),
    Example(
        "priorities",
        "topics/optimize",
        "class BooksToScrapeComSpider",
        "BooksToScrapeComSpider",
        (
            (
                r"http://books\.toscrape\.com/catalogue/category/books/mystery_3/index\.html",
                "{demo}/category/mystery/page/1",
            ),
        ),
    ),
    Example("callbacks", "topics/request-response", "class BookSpider", "BookSpider", BOOKS),
    Example(
        "errbacks",
        "topics/request-response",
        "class ErrbackSpider",
        "ErrbackSpider",
        (
            (r"http://www\.httpbin\.org:12345/", "http://127.0.0.1:9/"),
            (r"http://www\.httpbin\.org/status/404", "{demo}/missing/1"),
            (r"http://www\.httpbin\.org/status/500", "{demo}/broken/1"),
            (r"http://www\.httpbin\.org/", "{demo}/"),
        ),
    ),
    Example(
        "stop download",
        "topics/request-response",
        "class StopSpider",
        "StopSpider",
        (("https://docs.scrapy.org/en/latest/", "{pages}/1.html"),),
    ),
    Example(
        "login",
        "topics/request-response",
        "class LoginSpider",
        "LoginSpider",
        (
            (r"http://www\.example\.com/users/login\.php", "{demo}/login"),
            ('"secret"', '"magic"'),
            (
                "# continue scraping with authenticated session...",
                'return {{"customer": response.css("span.customer::text").get()}}',
            ),
        ),
        oldest=True,
        as_file=True,
    ),
    Example(
        "timer",
        "topics/settings",
        r"async def start\(self\):\n        from twisted.internet import reactor",
        "QuotesSpider",
        TUTORIAL,
    ),
    Example(
        "signals",
        "topics/signals",
        "class DmozSpider",
        "DmozSpider",
        ((r"http://www\.dmoz\.org", "{pages}"), (r'"dmoz\.org"', '"127.0.0.1"')),
    ),
    Example("all links", "topics/spiders", r'yield \{"title": h3\}', "MySpider", EXAMPLE),
    Example("an item", "topics/spiders", r"yield MyItem\(title=h3\)", "MySpider", EXAMPLE),
    Example(
        "CrawlSpider",
        "topics/spiders",
        r"class MySpider\(CrawlSpider\)",
        "MySpider",
        EXAMPLE,
        as_file=True,
    ),
    Example(
        "XMLFeedSpider",
        "topics/spiders",
        r"class MySpider\(XMLFeedSpider\)",
        "MySpider",
        EXAMPLE,
        as_file=True,
    ),
    Example(
        "CSVFeedSpider",
        "topics/spiders",
        r"class MySpider\(CSVFeedSpider\)",
        "MySpider",
        EXAMPLE,
        as_file=True,
    ),
    Example(
        "SitemapSpider with a filter",
        "topics/spiders",
        "class FilteredSitemapSpider",
        "FilteredSitemapSpider",
        EXAMPLE,
    ),
    Example(
        "SitemapSpider",
        "topics/spiders",
        r"sitemap\.xml\"\]\n\n    def parse\(",
        "MySpider",
        EXAMPLE,
    ),
    Example(
        "SitemapSpider with rules",
        "topics/spiders",
        r"class MySpider(?s:.*)parse_category",
        "MySpider",
        EXAMPLE,
    ),
    Example(
        "SitemapSpider of robots.txt",
        "topics/spiders",
        "sitemap_follow = ",
        "MySpider",
        EXAMPLE,
    ),
    Example(
        "SitemapSpider with start()",
        "topics/spiders",
        "other_urls = ",
        "MySpider",
        EXAMPLE,
        as_file=True,
    ),
    Example(
        "ItemLoader",
        "topics/loaders",
        r"ItemLoader\(item=Product\(\), response=response\)",
        "ProductSpider",
        EXAMPLE,
        wrapped="import scrapy\n\n\nclass ProductSpider(scrapy.Spider):\n"
        '    name = "product"\n    start_urls = ["http://www.example.com/product"]\n',
        as_file=True,
    ),
    Example("dataclass item", "topics/item-pipeline", "yield BookItem\\(\n", "BooksSpider", BOOKS),
    Example(
        "BeautifulSoup",
        "faq",
        "class ExampleSpider",
        "ExampleSpider",
        (*EXAMPLE[1:], (r"http://www\.example\.com/", "{pages}/product")),
    ),
)

# Templates of `scrapy genspider`: the page, and what is put in place of words meant to be changed.
TEMPLATES: dict[str, tuple[str, Pairs]] = {
    "basic": ("{demo}/quotes/", (("        pass", '        yield {{"url": response.url}}'),)),
    "crawl": (
        "{demo}/catalogue?page=1",
        (
            ("Items/", "/book/"),
            (r'#item\["name"\] = .*', 'item["name"] = response.css("h1::text").get()'),
        ),
    ),
    "csvfeed": ("{demo}/feed.csv", ((r'#i\["url"\]', 'i["url"]'),)),
    "xmlfeed": (
        "{demo}/feed.xml",
        ((r'#item\["name"\] = .*', 'item["name"] = selector.css("title::text").get()'),),
    ),
}


ALL = (*EXAMPLES, *COMPONENTS, *items.ITEMS, *items.FEEDS, *METHODS, *FRAGMENTS)


def examples(documents: Documents, sites: dict[str, str]) -> list[Made]:
    """All documented ones."""
    oldest = Documents(OLDEST, documents.folder.parent)
    return [each.made(oldest if each.oldest else documents, sites) for each in ALL]


def templates(folder: Path, sites: dict[str, str]) -> list[Made]:
    """All that `scrapy genspider` makes, their gaps filled in."""
    return [_generated(template, folder, sites) for template in TEMPLATES]


def _generated(template: str, folder: Path, sites: dict[str, str]) -> Made:
    url, pairs = TEMPLATES[template]
    words = ("genspider", "-t", template, f"made_{template}", url.format(**sites))
    subprocess.run(
        [sys.executable, "-m", "scrapy", *words], cwd=folder, check=True, capture_output=True
    )
    path = folder / f"made_{template}.py"
    text = path.read_text()
    path.unlink()
    # genspider keeps the port in the domain, which no host name matches.
    own: Pairs = ((r'allowed_domains = \[".*"\]', 'allowed_domains = ["127.0.0.1"]'),)
    kind = f"Made{template.capitalize()}Spider"
    return Made(template, kind, replaced(text, (*own, *pairs), sites))
