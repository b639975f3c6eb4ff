"""Spiders of a module file: pages without a network, and what spiders do besides items."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import scrapy
from scrapy.http import TextResponse

import vscrapy_magic as vs


def page(number: int) -> scrapy.Request:
    return scrapy.Request(f"data:text/plain,{number}", meta={"download_slot": "pages"})


class Pages(scrapy.Spider):
    """As many pages as asked for."""

    name = "pages"
    count = "5"

    async def start(self) -> AsyncIterator[Any]:
        for number in range(int(self.count)):
            yield page(number)

    def parse(self, response: TextResponse) -> Iterator[Any]:
        yield {"n": int(response.text), "tag": getattr(self, "tag", "")}


class Writer(Pages):
    """Writes files as pipelines of many projects do."""

    name = "writer"
    custom_settings = {"LOG_LEVEL": "INFO"}  # noqa: RUF012 - as spiders are written

    def parse(self, response: TextResponse) -> Iterator[Any]:
        number = int(response.text)
        Path("pages", "even" if number % 2 == 0 else "odd").mkdir(parents=True, exist_ok=True)
        Path("pages", "even" if number % 2 == 0 else "odd", f"{number}.txt").write_text(
            response.text * int(getattr(self, "times", "1"))
        )
        Path("link").unlink(missing_ok=True)
        Path("link").symlink_to("../outside")
        yield {"n": number}


class Keys(Pages):
    """Says the key of each item where a pipeline would use it."""

    name = "keys"

    def parse(self, response: TextResponse) -> Iterator[Any]:
        item = {"b": (1, {"z": 1, "a": {2}}), "a": response.text, "c": None}
        self.logger.info("key %s", vs.item_key(item))
        yield item


class Recorded(Pages):
    """Pages with all that a record has to keep: what a call changes, awaits, and hides."""

    name = "recorded"
    count = "20"

    async def start(self) -> AsyncIterator[Any]:
        async for request in super().start():
            yield request
        secret = {"Authorization": "Bearer secret"}
        more: dict[str, Any] = {"callback": self.parse_more, "headers": secret}
        yield scrapy.Request("data:text/plain,more", cb_kwargs={"tags": ["a"]}, **more)
        yield scrapy.Request("data:text/plain,fails", cb_kwargs={"tags": []}, **more)
        yield scrapy.Request("no-such://host/", errback=self.failed)

    async def parse_more(self, response: TextResponse, tags: list[str]) -> AsyncIterator[Any]:
        tags[:] = ["changed"]
        if self.crawler.engine is not None and response.text == "more":
            request = scrapy.Request("data:text/plain,inline")
            answer = await self.crawler.engine.download_async(request)
            yield {"inline": answer.body.decode()}
        if response.text == "fails":
            yield {"before": 1}
            raise ValueError("no")

    def failed(self, failure: Any) -> None:
        """Nothing: it reaches no callback."""
