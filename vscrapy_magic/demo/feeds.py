"""Owns what the demo site serves to machines: robots.txt, sitemap, feeds and the JSON API.

Runs in the demo site's process.
"""

import csv
import io
import json
from collections.abc import Iterable
from xml.sax.saxutils import escape

from vscrapy_magic.demo.catalogue import Book

SITEMAP_BOUND = 50_000  # URLs in one sitemap, as the protocol has it (https://www.sitemaps.org)
FEED_BOUND = 5_000  # books in a feed


def json_bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def robots(base: str) -> bytes:
    return f"User-agent: *\nDisallow: /private/\n\nSitemap: {base}/sitemap.xml\n".encode()


def sitemap(base: str, size: int) -> bytes:
    urls = "\n".join(
        f"<url><loc>{escape(base)}/book/{number}</loc></url>"
        for number in range(1, min(size, SITEMAP_BOUND) + 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}\n</urlset>\n'
    ).encode()


def xml_feed(base: str, books: Iterable[Book]) -> bytes:
    items = "\n".join(
        f"<item><id>{book.number}</id><title>{escape(book.title)}</title>"
        f"<link>{escape(base)}/book/{book.number}</link><price>{book.price}</price></item>"
        for book in books
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0"><channel>'
        f"<title>The Patient Spider</title><link>{escape(base)}/</link>"
        f"<description>Every book in print</description>\n{items}\n</channel></rss>\n"
    ).encode()


def csv_feed(base: str, books: Iterable[Book]) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["id", "title", "price", "stock", "url"])
    for book in books:
        url = f"{base}/book/{book.number}"
        rows.writerow([book.number, book.title, book.price, book.stock, url])
    return out.getvalue().encode()


def api_book(book: Book) -> dict[str, object]:
    return {
        "id": book.number,
        "title": book.title,
        "author": book.author,
        "category": book.category,
        "price": book.price,
        "stock": book.stock,
        "rating": book.rating,
        "upc": book.upc,
        "url": f"/book/{book.number}",
    }


def api_page(books: Iterable[Book], page: int, pages: int, total: int) -> bytes:
    return json_bytes(
        {
            "page": page,
            "pages": pages,
            "total": total,
            "next": f"/api/books?page={page + 1}" if page < pages else None,
            "books": [api_book(book) for book in books],
        }
    )
