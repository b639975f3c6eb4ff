"""A spider with all that a death could lose or repeat: items, parts, failures, drops, duplicates.

scrapy runspider rough.py -a site=http://127.0.0.1:8000 -O rough.jsonl
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import scrapy
from scrapy.exceptions import DropItem

STARTED = 40  # requests of start(): it is begun again when its worker dies


class FewPipeline:
    """Drops one book in nine."""

    def process_item(self, item: Any, spider: Any = None) -> Any:  # Scrapy 2.13 passes it
        if item["kind"] == "book" and item["number"] % 9 == 4:
            raise DropItem(f"book {item['number']}")
        return item


class RoughSpider(scrapy.Spider):
    name = "rough"
    custom_settings: ClassVar[dict[str, Any]] = {
        "ITEM_PIPELINES": {FewPipeline: 300},
        "LOG_LEVEL": "INFO",
    }

    def __init__(self, site: str = "http://127.0.0.1:8000", pieces: str = "1200", **kwargs: Any):
        super().__init__(**kwargs)
        self.site = site.rstrip("/")
        self.pieces = int(pieces)

    async def start(self) -> AsyncIterator[Any]:
        yield {"kind": "start", "number": 0}
        yield scrapy.Request(f"{self.site}/catalogue?page=1")
        for number in range(1, STARTED + 1):
            yield scrapy.Request(f"{self.site}/book/{number}", callback=self.parse_book)
        yield {"kind": "start", "number": 1}

    def parse(self, response: Any) -> Iterator[Any]:
        yield {"kind": "listing", "number": int(response.url.rpartition("=")[2])}
        yield from response.follow_all(css="article.product_pod h3 a", callback=self.parse_book)
        yield from response.follow_all(css="li.next a")

    async def parse_book(self, response: Any) -> AsyncIterator[Any]:
        number = int(response.url.rpartition("/")[2])
        for link in response.css("a.related"):
            yield response.follow(link, callback=self.parse_book)
        yield {"kind": "book", "number": number, "title": response.css("h1::text").get()}
        if number % 10 == 3:
            raise ValueError(f"book {number} cannot be read")
        if number % 10 == 7:
            await asyncio.sleep(0.05)
            yield {"kind": "late", "number": number}
        if number % 25 == 5:
            for piece in range(self.pieces):
                yield {"kind": "piece", "number": number, "piece": piece}
