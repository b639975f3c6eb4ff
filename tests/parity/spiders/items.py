"""Types of items, and what feeds make of them."""

import dataclasses
import datetime
import decimal
import uuid

import attrs
import scrapy


class Product(scrapy.Item):
    name = scrapy.Field()
    price = scrapy.Field(serializer=lambda value: f"EUR {value}")
    tags = scrapy.Field()
    part = scrapy.Field()


@dataclasses.dataclass
class Offer:
    name: str
    price: float = 0.0
    tags: list = dataclasses.field(default_factory=list)


@attrs.define
class Review:
    author: str
    stars: int = 5


class Pages(scrapy.Spider):
    """No feature: twenty pages."""

    async def start(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/item/{n}")


class DictSpider(Pages):
    """dict items: nested, with sets, tuples, bytes, dates, decimals, None and other keys."""

    name = "dict_items"

    def parse(self, response):
        yield {
            "url": response.url,
            "nested": {"a": [1, {"b": (2, 3)}], "none": None},
            "set": {7},
            "when": datetime.datetime(2024, 2, 29, 12, 30),
            "day": datetime.date(2024, 2, 29),
            "time": datetime.time(1, 2, 3),
            "price": decimal.Decimal("9.90"),
            "float": 0.1 + 0.2,
            "big": 2**80,
            "ünï": "☃",
            "true": True,
        }


class ScrapyItemSpider(Pages):
    """scrapy.Item with a serializer, nested items and missing fields."""

    name = "scrapy_items"

    def parse(self, response):
        part = Product(name="part", price=1)
        yield Product(name=response.css("h1::text").get(), price=3, tags=["a", "b"], part=part)
        yield Product(name="only a name")


class DataclassSpider(Pages):
    """dataclass items."""

    name = "dataclass_items"

    def parse(self, response):
        yield Offer(
            response.css("h1::text").get(), float(response.css(".price::text").get()), ["x"]
        )


class AttrsSpider(Pages):
    """attrs items, inside of a dict too."""

    name = "attrs_items"

    def parse(self, response):
        yield Review(response.css("h1::text").get())
        yield {"review": Review("inside", 1), "offer": Offer("inside")}


class MixedTypesSpider(Pages):
    """Items of all types in one crawl."""

    name = "mixed_items"

    def parse(self, response):
        yield {"name": "dict"}
        yield Product(name="item")
        yield Offer("dataclass")
        yield Review("attrs")


class UuidSpider(Pages):
    """Items with objects that JSON cannot hold, made text by a pipeline."""

    name = "uuid_items"

    class Text:
        def process_item(self, item):
            return {key: str(value) for key, value in item.items()}

    custom_settings = {"ITEM_PIPELINES": {Text: 1}}

    def parse(self, response):
        yield {"id": uuid.uuid5(uuid.NAMESPACE_URL, "x"), "url": response.url, "where": range(3)}
