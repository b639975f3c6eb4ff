"""A plain spider: pagination, detail pages, related links of which most are duplicates.

scrapy runspider books.py -a site=http://127.0.0.1:8000 -O books.jsonl
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import scrapy

RATINGS = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}


class BooksSpider(scrapy.Spider):
    name = "books"

    def __init__(self, site: str = "http://127.0.0.1:8000", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site.rstrip("/")

    async def start(self) -> AsyncIterator[Any]:
        yield scrapy.Request(f"{self.site}/catalogue?page=1")

    def parse(self, response: Any) -> Iterator[Any]:
        links = response.css("article.product_pod h3 a")
        yield {
            "kind": "listing",
            "path": response.url.removeprefix(self.site),
            "depth": response.meta["depth"],
            "books": len(links),
        }
        yield from response.follow_all(links, callback=self.parse_book)
        yield from response.follow_all(css="li.next a")

    def parse_book(self, response: Any) -> Iterator[Any]:
        main = response.css("div.product_main")
        rating = main.css("p.star-rating").attrib["class"].split()[-1]
        yield {
            "kind": "book",
            "path": response.url.removeprefix(self.site),
            "depth": response.meta["depth"],
            "title": main.css("h1::text").get(),
            "author": main.css("p.author span::text").get(),
            "price": main.css("p.price_color::text").get(),
            "rating": RATINGS[rating],
            "stock": int(main.css("table td::text").getall()[-1]),
            "upc": main.css("table td::text").get(),
            "related": len(response.css("a.related")),
        }
        yield from response.follow_all(css="a.related", callback=self.parse_book)
