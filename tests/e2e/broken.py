"""A spider whose callbacks fail in the ways in which spiders fail: the corpus of `%vdebug`.

Source that is run in a cell of a notebook; each of its callbacks fails once. What fails in
another way here, because it depends on what is gone, is in `LOST`.
"""

SOURCE = r'''
import asyncio
import dataclasses
import datetime
import decimal
import functools
import json
import re
from urllib.parse import urlsplit
from xml.etree import ElementTree

import scrapy
from itemloaders.processors import MapCompose
from scrapy.loader import ItemLoader

PAGE = "<html><h1>Fish</h1><b class=price>12,50 EUR</b><a href='/next'>n</a></html>"


class Product(scrapy.Item):
    name = scrapy.Field()
    price = scrapy.Field()


@dataclasses.dataclass
class Offer:
    name: str
    price: float


class PriceError(Exception):
    """Of the user's own."""


class Cents:
    def process_item(self, item, spider=None):
        if isinstance(item, Product) and item["name"] == "cents":
            item["price"] = int(item["price"]) * 100
        if isinstance(item, Offer):
            return item.price / 0
        return item


class Outputs:
    def process_spider_output(self, response, result, spider=None):
        for output in result:
            if isinstance(output, dict) and output.get("via") == "outputs":
                output["missing"]["key"]
            yield output

    async def process_spider_output_async(self, response, result, spider=None):
        async for output in result:
            if isinstance(output, dict) and output.get("via") == "outputs":
                output["missing"]["key"]
            yield output


class Answers:
    def process_response(self, request, response, spider=None):
        if request.meta.get("via") == "answers":
            return response.replace(status=response.headers["X-None"].decode())
        return response


def parse_price(text):
    whole, cents = text.split(".")
    return int(whole) * 100 + int(cents)


class BrokenSpider(scrapy.Spider):
    name = "broken"
    site = "http://127.0.0.1:8000"
    custom_settings = {
        "ITEM_PIPELINES": {Cents: 300},
        "SPIDER_MIDDLEWARES": {Outputs: 900},
        "DOWNLOADER_MIDDLEWARES": {Answers: 900},
        "RETRY_ENABLED": False,
        "LOG_LEVEL": "INFO",
    }

    async def start(self):
        html = f"data:text/html;charset=utf-8,{PAGE}"
        for name in CALLBACKS:
            yield scrapy.Request(f"{html}<!--{name}-->", getattr(self, name), meta={"n": 3})
        plain = {
            "no_json": "data:text/html,<html>sorry</html>",
            "json_key": 'data:application/json,{"items": []}',
            "json_list": "data:application/json,[1, 2]",
            "latin": "data:text/plain;charset=latin-1,caf%E9",
            "binary": "data:image/png;base64,iVBORw0KGgo=",
            "xml": "data:text/plain,<a><b></a>",
        }
        for name, url in plain.items():
            yield scrapy.Request(url, getattr(self, name))
        rate = 0
        yield scrapy.Request(html + "<!--lambda-->", lambda response: response.css("i")[7])
        yield scrapy.Request(html + "<!--partial-->", functools.partial(self.scaled, factor=None))
        yield scrapy.Request(html + "<!--kwargs-->", self.with_kwargs, cb_kwargs={"other": 1})
        yield scrapy.Request(f"{self.site}/missing/1", errback=self.on_status)
        yield scrapy.Request("http://127.0.0.1:9/", errback=self.on_refused)
        yield scrapy.Request(html + "<!--answers-->", meta={"via": "answers"})
        yield scrapy.FormRequest(f"{self.site}/echo", self.posted, formdata={"q": "ü"})
        yield scrapy.Request(f"{self.site}/account", self.logged_out, dont_filter=True)

    def parse(self, response):
        """Of those who only pass."""

    # Selectors.

    def none_text(self, response):
        yield {"title": response.css("h2::text").get().strip()}

    def none_regex(self, response):
        yield {"year": re.search(r"(\d{4})", response.text).group(1)}

    def none_subscript(self, response):
        return response.css("h1::attr(id)").get()[0]

    def empty_list(self, response):
        yield {"first": response.xpath("//li/text()").getall()[0]}

    def bad_xpath(self, response):
        yield {"x": response.xpath("//h1[").get()}

    def follow_none(self, response):
        yield response.follow(response.css("a.missing::attr(href)").get())

    def relative(self, response):
        yield scrapy.Request(response.css("a::attr(href)").get())

    # Types and numbers.

    def money(self, response):
        yield {"price": float(response.css("b.price::text").get())}

    def whole(self, response):
        yield {"price": int("1.299")}

    def decimals(self, response):
        yield {"price": decimal.Decimal(response.css("b::text").get())}

    def helper(self, response):
        yield {"price": parse_price(response.css("b::text").get())}

    def date(self, response):
        yield {"day": datetime.datetime.strptime("31.02.2024", "%d.%m.%Y")}

    def address(self, response):
        yield {"host": urlsplit("http://[broken").hostname}

    def zero(self, response):
        prices = response.css("li").getall()
        yield {"mean": sum(map(len, prices)) / len(prices)}

    def closure(self, response):
        limits = {"a": 1}

        def limit_of(name):
            return limits[name]

        yield {"limit": limit_of(response.css("h1::text").get())}

    def text_and_number(self, response):
        return {"n": response.meta["n"] + response.css("h1::text").get()}

    def no_meta(self, response):
        yield {"page": response.meta["page"]}

    def unbound(self, response):
        for row in response.css("tr"):
            last = row
        yield {"last": last}

    def recursion(self, response):
        return self.deeper(response)

    def deeper(self, response):
        return self.deeper(response)

    def own_error(self, response):
        raise PriceError("no price")

    def chained(self, response):
        try:
            {}["price"]
        except KeyError as exc:
            raise PriceError("page has no price") from exc

    def asserted(self, response):
        assert response.css("h1::text").get() == "Bread", "another page"

    def no_file(self, response):
        with open("prices.csv") as file:
            yield {"lines": len(file.readlines())}

    # Items.

    def unknown_field(self, response):
        yield Product(title="x")

    def missing_argument(self, response):
        yield Offer(name="x")

    def loader(self, response):
        loader = ItemLoader(Product(), response=response)
        loader.add_css("price", "b::text", MapCompose(float))
        yield loader.load_item()

    def in_pipeline(self, response):
        yield Product(name="cents", price="12.50")

    def in_pipeline_of_offers(self, response):
        yield Offer("x", 1.0)

    def in_spider_middleware(self, response):
        yield {"via": "outputs", "missing": {}}

    # Async.

    async def after_sleep(self, response):
        await asyncio.sleep(0.01)
        return response.css("i")[3]

    async def async_items(self, response):
        yield {"n": 1}
        await asyncio.sleep(0)
        yield {"n": 1 / (response.meta["n"] - 3)}

    async def grouped(self, response):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fails_with(ValueError("one")))
            group.create_task(self.fails_with(KeyError("two")))

    async def fails_with(self, exc):
        raise exc

    async def too_slow(self, response):
        await asyncio.wait_for(asyncio.sleep(5), 0.01)

    async def inline(self, response):
        other = await self.crawler.engine.download_async(
            scrapy.Request('data:application/json,{"rows": 3}')
        )
        yield {"rows": len(other.json()["rows"])}

    # Generators.

    def stop_iteration(self, response):
        yield {"first": next(iter(response.css("li")))}

    def late(self, response):
        yield {"n": 1}
        yield {"n": 2}
        yield {"n": None + 1}

    # Data of other kinds.

    def no_json(self, response):
        return json.loads(response.text)

    def json_key(self, response):
        yield {"n": response.json()["results"][0]}

    def json_list(self, response):
        yield {"n": response.json()["items"]}

    def latin(self, response):
        yield {"text": response.body.decode("utf-8")}

    def binary(self, response):
        yield {"text": response.css("h1").get()}

    def xml(self, response):
        yield {"root": ElementTree.fromstring(response.body).tag}

    # Requests of other kinds.

    def scaled(self, response, factor):
        yield {"n": 2 * factor * response.meta["depth"]}

    def with_kwargs(self, response, page):
        yield {"page": page}

    def on_status(self, failure):
        yield {"status": failure.value.response.json()["status"]}

    def on_refused(self, failure):
        yield {"status": failure.value.response.status}

    def posted(self, response):
        yield {"q": response.json()["form"]["q"][5].upper()}

    def logged_out(self, response):
        yield {"name": response.css(".welcome::text").get().removeprefix("Hello ")}

    # State.

    def token(self, response):
        yield scrapy.Request(response.url + "#t", headers={"X-Token": self.session_token})

    def third_page(self, response):
        self.seen = getattr(self, "seen", 0) + 3
        if self.seen >= 3 and self.crawler.stats.get_value("response_received_count", 0) > 0:
            raise RuntimeError("enough was seen")


CALLBACKS = (
    "none_text none_regex none_subscript empty_list bad_xpath follow_none relative money whole "
    "decimals helper date address zero closure text_and_number no_meta unbound recursion own_error "
    "chained asserted no_file unknown_field missing_argument loader in_pipeline "
    "in_pipeline_of_offers in_spider_middleware after_sleep async_items grouped too_slow inline "
    "stop_iteration late token third_page"
).split()
'''
LOST = frozenset(
    {
        ("third_page", "RuntimeError"),  # asks how many pages the crawl has had so far
        ("<lambda>", "IndexError"),  # its request cannot be sent along
        # `next()` of nothing in a callback: a middleware that iterates it is where it comes out.
        ("process_spider_output_async", "RuntimeError"),
    }
)
COUNT = 52
