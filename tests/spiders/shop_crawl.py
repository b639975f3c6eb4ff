"""A CrawlSpider: rules, items with a loader, a pipeline that drops, redirects, retries, errbacks.

scrapy runspider shop_crawl.py -a site=http://127.0.0.1:8000 -O shop.jsonl
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import scrapy
from itemloaders.processors import MapCompose, TakeFirst
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.http import Response
from scrapy.linkextractors import LinkExtractor
from scrapy.loader import ItemLoader
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.spiders import CrawlSpider, Rule
from twisted.python.failure import Failure


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


class BookItem(scrapy.Item):
    kind = scrapy.Field()
    path = scrapy.Field()
    title = scrapy.Field()
    price = scrapy.Field()
    stock = scrapy.Field()
    shelf = scrapy.Field()
    found_by = scrapy.Field()
    moved_from = scrapy.Field()


class PageItem(scrapy.Item):
    kind = scrapy.Field()
    path = scrapy.Field()
    title = scrapy.Field()
    reason = scrapy.Field()


class BookLoader(ItemLoader):
    default_item_class = BookItem
    default_output_processor = TakeFirst()
    price_in = MapCompose(lambda text: float(text.strip().lstrip("£")))
    stock_in = MapCompose(int)


class InStockPipeline:
    """Drops books that cannot be bought."""

    def __init__(self, least: int) -> None:
        self.least = least

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler.settings.getint("SHOP_LEAST_STOCK"))

    def process_item(self, item: Any, spider: Any = None) -> Any:  # Scrapy 2.13 passes it
        if item["kind"] == "book" and item["stock"] < self.least:
            raise DropItem(f"{item['path']} has {item['stock']} in stock")
        return item


class ShopCrawlSpider(CrawlSpider):
    name = "shop_crawl"
    custom_settings: ClassVar[dict[str, Any]] = {
        "ITEM_PIPELINES": {InStockPipeline: 300},
        "SHOP_LEAST_STOCK": 1,
        "ROBOTSTXT_OBEY": True,
        "RETRY_TIMES": 3,
    }
    rules = (
        Rule(LinkExtractor(allow=(r"/category/", r"/oddities$"))),
        Rule(
            LinkExtractor(allow=r"/book/\d+$"),
            callback="parse_book",
            cb_kwargs={"found_by": "link"},
            follow=True,
            process_request="shelve",
            errback="failed",
        ),
        Rule(
            LinkExtractor(allow=r"/(old-book|meta-refresh)/"),
            callback="parse_book",
            cb_kwargs={"found_by": "redirect"},
            process_request="shelve",
            errback="failed",
        ),
        Rule(
            LinkExtractor(allow=r"/(flaky|broken|missing|slow|private|encoding)/"),
            callback="parse_page",
            errback="failed",
        ),
    )

    def __init__(self, site: str = "http://127.0.0.1:8000", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed_domains = [urlsplit(site).hostname or ""]
        self.start_urls = [f"{site.rstrip('/')}/"]

    def shelve(self, request: scrapy.Request, _response: Response) -> scrapy.Request:
        number = int(urlsplit(request.url).path.rpartition("/")[2])
        return request.replace(priority=number % 3, meta={**request.meta, "shelf": number % 7})

    def parse_book(self, response: Any, found_by: str) -> Iterator[Any]:
        loader = BookLoader(response=response)
        loader.add_value("kind", "book")
        loader.add_value("path", path_of(response.url))
        loader.add_css("title", "h1::text")
        loader.add_css("price", "p.price_color::text")
        loader.add_xpath("stock", "//th[.='Availability']/following-sibling::td/text()")
        loader.add_value("shelf", response.meta["shelf"])
        loader.add_value("found_by", found_by)
        loader.add_value(
            "moved_from", [path_of(url) for url in response.meta.get("redirect_urls", [])]
        )
        yield loader.load_item()

    def parse_page(self, response: Any) -> Iterator[Any]:
        title = response.css("h1::text").get()
        yield PageItem(kind="page", path=path_of(response.url), title=title)

    def failed(self, failure: Failure) -> Iterator[Any]:
        if isinstance(failure.value, HttpError):
            response = failure.value.response
            yield PageItem(kind="failed", path=path_of(response.url), reason=str(response.status))
        else:
            url = failure.request.url  # type: ignore[attr-defined]
            yield PageItem(kind="failed", path=path_of(url), reason=type(failure.value).__name__)
