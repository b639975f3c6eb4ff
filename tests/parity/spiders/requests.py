"""What requests carry, and how they are asked."""

import base64
import dataclasses
import datetime
import decimal
import functools

import scrapy
from itemloaders.processors import Join, MapCompose, TakeFirst
from scrapy.http import FormRequest, JsonRequest, XmlRpcRequest
from scrapy.loader import ItemLoader
from scrapy.utils.python import to_bytes


class Page(scrapy.Item):
    title = scrapy.Field()
    prices = scrapy.Field()
    reviews = scrapy.Field()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list = dataclasses.field(default_factory=list)


class MetaSpider(scrapy.Spider):
    """meta and cb_kwargs with nested data, tuples, sets, bytes, dates and decimals."""

    name = "meta"

    async def start(self):
        for n in range(24):
            meta = {
                "nested": {"list": [n, (n, str(n))], "set": {1, 2}, "none": None, 3: "int key"},
                "bytes": bytes([n, 255]),
                "when": datetime.datetime(2024, 1, 1 + n, tzinfo=datetime.UTC),
                "price": decimal.Decimal("1.10") + n,
                "big": 2**100 + n,
            }
            yield scrapy.Request(f"{self.site}/page/{n}", meta=meta, cb_kwargs={"pair": (n, n + 1)})

    def parse(self, response, pair):
        nested = response.meta["nested"]
        yield {
            "types": [type(response.meta[k]).__name__ for k in ("bytes", "when", "price", "big")],
            "kinds": [type(nested["list"][1]).__name__, type(nested["set"]).__name__, nested[3]],
            "text": repr([response.meta["bytes"], response.meta["when"], response.meta["price"]]),
            "pair": [pair.__class__.__name__, *pair],
            "big": str(response.meta["big"]),
        }


class ItemInMetaSpider(scrapy.Spider):
    """An Item that grows over several pages, in meta and in cb_kwargs."""

    name = "item_in_meta"

    async def start(self):
        yield scrapy.Request(f"{self.site}/list")

    def parse(self, response):
        for link in response.css(".all a"):
            item = Page(title=link.css("::text").get())
            yield response.follow(link, self.parse_item, meta={"item": item})

    def parse_item(self, response):
        item = response.meta["item"]
        item["prices"] = [float(response.css(".price::text").get())]
        yield response.follow(
            response.css(".review")[0], self.parse_review, cb_kwargs={"item": item, "at": Point(1)}
        )

    def parse_review(self, response, item, at):
        item["reviews"] = [response.css("h1::text").get(), at.x, at.tags]
        yield item


class LoaderSpider(scrapy.Spider):
    """ItemLoaders with processors, handed on with their item."""

    name = "loader"

    class Loader(ItemLoader):
        default_item_class = Page
        default_output_processor = TakeFirst()
        title_in = MapCompose(str.strip, str.upper)
        prices_out = Join("/")

    async def start(self):
        for n in range(1, 21):
            yield scrapy.Request(f"{self.site}/item/{n}")

    def parse(self, response):
        loader = self.Loader(response=response)
        loader.add_css("title", "h1::text")
        loader.add_css("prices", ".price::text")
        loader.add_value("prices", "EUR")
        review = response.css(".review::attr(href)").get()
        yield response.follow(review, self.parse_review, meta={"item": loader.load_item()})

    def parse_review(self, response):
        loader = self.Loader(item=response.meta["item"], response=response)
        loader.add_css("reviews", "h1::text")
        yield loader.load_item()


class ResponseInMetaSpider(scrapy.Spider):
    """Responses, requests and selectors' text in meta."""

    name = "response_in_meta"

    async def start(self):
        for n in range(1, 16):
            yield scrapy.Request(f"{self.site}/item/{n}")

    def parse(self, response):
        yield response.follow(
            f"/review/{response.url.rpartition('/')[2]}",
            self.parse_review,
            meta={"before": response, "asked": response.request},
        )

    def parse_review(self, response):
        before = response.meta["before"]
        yield {
            "before": before.css("h1::text").get(),
            "type": type(before).__name__,
            "status": before.status,
            "headers": before.headers.get("Content-Type").decode(),
            "asked": response.meta["asked"].url,
            "again": before.urljoin("x"),
            "here": response.css("h1::text").get(),
        }


class LambdaSpider(scrapy.Spider):
    """Lambdas, nested functions and functools.partial as callbacks and errbacks."""

    name = "lambdas"

    async def start(self):
        for n in range(10):
            yield scrapy.Request(
                f"{self.site}/page/{n}", callback=lambda response, n=n: self.found(response, n)
            )
        for n in range(10, 20):
            yield scrapy.Request(
                f"{self.site}/page/{n}", callback=functools.partial(self.found, n=n)
            )

        def nested(response):
            yield {"nested": response.url}
            yield response.follow("/page/99", lambda r: {"after nested": r.url})

        for n in range(20, 25):
            yield scrapy.Request(f"{self.site}/page/{n}", callback=nested)
        yield scrapy.Request(
            f"{self.site}/status/404",
            nested,
            errback=lambda failure: {"failed": failure.value.response.status},
        )

    def found(self, response, n):
        yield {"n": n, "url": response.url}


class ErrbackSpider(scrapy.Spider):
    """errback for statuses, DNS, refused connections and errors of the callback's own."""

    name = "errback"
    custom_settings = {"RETRY_ENABLED": False}

    async def start(self):
        urls = [f"{self.site}/status/{code}" for code in (404, 410, 500, 503)]
        urls += [
            "http://127.0.0.1:1/",
            "http://nowhere.invalid/",
        ]
        urls += [f"{self.site}/page/{n}" for n in range(5)]
        for url in urls:
            yield scrapy.Request(url, errback=self.failed, cb_kwargs={"at": url})

    def parse(self, response, at):
        yield {"fine": at}
        yield response.follow("/status/404?second", self.parse_second, errback=self.failed)

    def parse_second(self, response):
        raise AssertionError("never called")

    def failed(self, failure):
        status = getattr(getattr(failure.value, "response", None), "status", None)
        at = failure.request.cb_kwargs.get("at", "second")
        kind = failure.type.__name__.removesuffix("Error").replace("Lookup", "")
        yield {"failed": at, "kind": "download" if status is None else kind, "status": status}


class BodiesSpider(scrapy.Spider):
    """POST, PUT, PATCH, DELETE and HEAD with text, JSON, form and binary bodies."""

    name = "bodies"

    async def start(self):
        site = self.site
        yield scrapy.Request(f"{site}/echo", method="POST", body="größe=ü&x=1")
        yield scrapy.Request(f"{site}/echo", method="PUT", body=bytes(range(256)))
        yield scrapy.Request(f"{site}/echo?e", method="PATCH", body="ß", encoding="latin-1")
        yield scrapy.Request(f"{site}/echo", method="DELETE")
        yield scrapy.Request(f"{site}/echo", method="HEAD", callback=self.parse_head)
        yield JsonRequest(f"{site}/echo?json", data={"a": [1, "ü", None]})
        yield JsonRequest(f"{site}/echo?sorted", data={"b": 1, "a": 2}, dumps_kwargs={"indent": 1})
        yield FormRequest(f"{site}/echo?form", formdata={"ключ": "значение", "many": ["1", "2"]})
        yield FormRequest(f"{site}/echo?get", method="GET", formdata={"q": "für"})
        yield XmlRpcRequest(f"{site}/echo?rpc", methodname="add", params=(1, 2))
        yield scrapy.Request(
            f"{site}/echo?headers",
            headers={"X-One": "1", "X-Many": ["a", "b"], "X-Bytes": b"\xc3\xbc"},
        )
        yield scrapy.Request(f"{site}/echo/pfad/größe?wort=für&z=%20")
        for n in range(12):
            yield scrapy.Request(f"{site}/echo", method="POST", body=f"{n}")

    def parse(self, response):
        data = response.json()
        data["headers"].pop("accept", None)
        data["sent"] = base64.b64encode(response.request.body).decode()
        data["type"] = type(response.request).__name__
        yield data

    def parse_head(self, response):
        yield {"head": response.status, "body": len(response.body)}


class OwnRequest(scrapy.Request):
    """A request of a class of the spider's own."""

    attributes = (*scrapy.Request.attributes, "label")

    def __init__(self, *args, label="", **kwargs):
        self.label = label
        super().__init__(*args, **kwargs)


class OwnRequestSpider(scrapy.Spider):
    """A Request class with an attribute, flags, an encoding and replace()."""

    name = "own_request"

    async def start(self):
        for n in range(16):
            yield OwnRequest(f"{self.site}/page/{n}", label=f"L{n}", flags=["own", str(n)])

    def parse(self, response):
        request = response.request
        yield {"label": request.label, "flags": request.flags, "type": type(request).__name__}
        if "again" not in request.url:
            yield request.replace(url=f"{request.url}?again", label=f"{request.label}!")


class PrioritySpider(scrapy.Spider):
    """Priorities: with one request at a time the order is theirs."""

    name = "priority"
    custom_settings = {"CONCURRENT_REQUESTS": 1}

    async def start(self):
        yield scrapy.Request(f"{self.site}/list", self.parse_list)

    def parse_list(self, response):
        for n in range(12):
            yield response.follow(f"/page/{n}", priority=(n * 7) % 12)

    def parse(self, response):
        yield {"url": response.url, "priority": response.request.priority}


class FilterSpider(scrapy.Spider):
    """Duplicates are filtered, dont_filter and other methods and bodies are not."""

    name = "filter"

    async def start(self):
        for _ in range(3):
            for n in range(10):
                yield scrapy.Request(f"{self.site}/page/{n}?b=2&a=1#x")
                yield scrapy.Request(f"{self.site}/page/{n}?a=1&b=2")
        for n in range(3):
            yield scrapy.Request(f"{self.site}/page/1", dont_filter=True)
            yield scrapy.Request(f"{self.site}/echo", method="POST", body=str(n % 2))

    def parse(self, response):
        yield {"url": response.url}
        yield response.follow("/page/3?b=2&a=1")
        yield response.follow("/page/100", dont_filter=True, callback=self.parse_last)

    def parse_last(self, response):
        yield {"last": response.url}


class InlineSpider(scrapy.Spider):
    """Requests awaited in a callback: engine.download_async and gathered ones."""

    name = "inline"

    async def start(self):
        for n in range(1, 13):
            yield scrapy.Request(f"{self.site}/item/{n}")

    async def parse(self, response):
        n = response.url.rpartition("/")[2]
        request = scrapy.Request(response.urljoin(f"/review/{n}"))
        engine = self.crawler.engine
        if hasattr(engine, "download_async"):
            review = await engine.download_async(request)
        else:
            from scrapy.utils.defer import maybe_deferred_to_future

            review = await maybe_deferred_to_future(engine.download(request))
        yield {"n": n, "review": review.css("h1::text").get()}
        yield response.follow(f"/page/{n}", self.parse_page)

    def parse_page(self, response):
        yield {"page": response.url}


class AsyncCallbackSpider(scrapy.Spider):
    """async def callbacks that sleep, and async generators."""

    name = "async_callbacks"

    async def start(self):
        import asyncio

        for n in range(10):
            yield scrapy.Request(f"{self.site}/page/{n}", [self.parse, self.parse_one][n % 2])
            await asyncio.sleep(0.001)

    async def parse(self, response):
        import asyncio

        for n in range(3):
            await asyncio.sleep(0.005)
            yield {"n": n, "url": response.url}

    async def parse_one(self, response):
        import asyncio

        await asyncio.sleep(0.01)
        return [{"one": response.url, "bytes": len(to_bytes(response.text))}]


class ReturnsSpider(scrapy.Spider):
    """Callbacks that return None, one item, a list, a generator."""

    name = "returns"

    async def start(self):
        for kind in ("none", "item", "list", "request", "mixed"):
            yield scrapy.Request(f"{self.site}/page/{kind}", getattr(self, f"give_{kind}"))

    def give_none(self, response):
        return None

    def give_item(self, response):
        return {"item": response.url}

    def give_list(self, response):
        return [{"list": 1}, {"list": 2}, None]

    def give_request(self, response):
        return response.follow("/page/1", self.give_item)

    def give_mixed(self, response):
        yield {"mixed": 1}
        yield None
        yield response.follow("/page/2", self.give_item)
