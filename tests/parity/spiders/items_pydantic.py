"""Items of pydantic, where it is installed."""

import scrapy

try:
    from pydantic import BaseModel
except ImportError:
    BaseModel = object


class Book(BaseModel):
    title: str
    price: float = 0
    tags: list[str] = []


class PydanticSpider(scrapy.Spider):
    """pydantic items."""

    name = "pydantic_items"

    async def start(self):
        for n in range(10):
            yield scrapy.Request(f"{self.site}/item/{n}")

    def parse(self, response):
        yield Book(title=response.css("h1::text").get(), price=response.css(".price::text").get())
