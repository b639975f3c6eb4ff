"""Extensions, add-ons, signals, stats, fingerprinters."""

import hashlib

import scrapy
from scrapy import signals
from scrapy.exceptions import NotConfigured
from scrapy.utils.request import fingerprint


class Counts:
    """Counts signals in stats."""

    def __init__(self, crawler):
        self.stats = crawler.stats
        for name in (
            "item_scraped",
            "item_dropped",
            "item_error",
            "response_received",
            "response_downloaded",
            "request_reached_downloader",
            "request_left_downloader",
            "request_scheduled",
            "request_dropped",
            "bytes_received",
            "headers_received",
            "spider_error",
        ):
            crawler.signals.connect(getattr(self, name), getattr(signals, name))

    @classmethod
    def from_crawler(cls, crawler):
        if not crawler.settings.getbool("COUNTS_ENABLED"):
            raise NotConfigured
        return cls(crawler)

    def _count(self, name):
        self.stats.inc_value(f"signals/{name}")

    def item_scraped(self, item, response):
        self._count("item_scraped")

    def item_dropped(self, item):
        self._count("item_dropped")

    def item_error(self, item):
        self._count("item_error")

    def response_received(self, response):
        self._count("response_received")

    def response_downloaded(self, response):
        self._count("response_downloaded")

    def request_reached_downloader(self, request):
        self._count("request_reached_downloader")

    def request_left_downloader(self, request):
        self._count("request_left_downloader")

    def request_scheduled(self, request):
        self._count("request_scheduled")

    def request_dropped(self, request):
        self._count("request_dropped")

    def bytes_received(self, data):
        self.stats.inc_value("signals/bytes", len(data))

    def headers_received(self, headers):
        self._count("headers_received")

    def spider_error(self, failure):
        self._count("spider_error")


class DropOdd:
    def process_item(self, item):
        if item["n"] % 2:
            raise scrapy.exceptions.DropItem("odd")
        if item["n"] % 10 == 0:
            raise ValueError("ten")
        return item


class Addon:
    """Adds a pipeline and settings."""

    def update_settings(self, settings):
        settings.set("ADDED", "by add-on", "addon")
        settings.setdefault_in_component_priority_dict("ITEM_PIPELINES", Labels, 500)


class Labels:
    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.label = crawler.settings["ADDED"]
        return made

    def process_item(self, item):
        item["label"] = self.label
        return item


class PathOnly:
    """A fingerprinter: queries do not matter."""

    def fingerprint(self, request):
        return hashlib.sha1(request.url.partition("?")[0].encode()).digest()


class Base(scrapy.Spider):
    """No feature: thirty pages with a number."""

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        yield {"n": n}


class SignalsSpider(Base):
    """An extension that counts twelve signals of requests, responses, items and errors."""

    name = "signals"
    custom_settings = {
        "EXTENSIONS": {Counts: 1},
        "COUNTS_ENABLED": True,
        "ITEM_PIPELINES": {DropOdd: 1},
    }

    def parse(self, response, n):
        yield {"n": n}
        yield response.follow("/page/1")
        if n == 7:
            raise KeyError(n)


class StopDownloadSpider(Base):
    """StopDownload raised in a handler of bytes_received, headers_received."""

    name = "stop_download"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_headers, signals.headers_received)
        return spider

    def on_headers(self, headers, request):
        if "big" in request.url:
            raise scrapy.exceptions.StopDownload(fail=False)

    async def start(self):
        for n in range(8):
            yield scrapy.Request(f"{self.site}/big?mb=0.1&n={n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        yield {"n": n, "flags": response.flags, "bytes": len(response.body)}


class NotConfiguredSpider(Base):
    """Extensions that raise NotConfigured, and built-in ones switched off."""

    name = "not_configured"
    custom_settings = {
        "EXTENSIONS": {Counts: 1, "scrapy.extensions.logstats.LogStats": None},
    }


class AddonSpider(Base):
    """An add-on that changes settings and adds a pipeline, by ADDONS."""

    name = "addon"

    @classmethod
    def update_settings(cls, settings):
        super().update_settings(settings)


class FingerprinterSpider(Base):
    """REQUEST_FINGERPRINTER_CLASS of one's own."""

    name = "fingerprinter"
    custom_settings = {"REQUEST_FINGERPRINTER_CLASS": PathOnly}

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n % 10}?n={n % 10}", cb_kwargs={"n": n % 10})

    def parse(self, response, n):
        yield {"n": n, "same": fingerprint(response.request) == fingerprint(response.request)}
        yield response.follow(f"/page/{n}?other={n}", cb_kwargs={"n": n})


class StatsSpider(Base):
    """Stats that a spider writes and reads: inc, max, min, set, get."""

    name = "stats"

    def parse(self, response, n):
        stats = self.crawler.stats
        stats.inc_value("own/pages")
        stats.inc_value("own/sum", n)
        stats.max_value("own/max", n)
        stats.min_value("own/min", n)
        stats.set_value("own/text", "same")
        stats.inc_value("own/float", 0.5)
        yield {
            "n": n,
            "known": stats.get_value("own/text"),
            "some": stats.get_value("own/pages") > 0,
        }


class NoFilterSpider(Base):
    """DUPEFILTER_CLASS BaseDupeFilter: nothing is filtered."""

    name = "no_filter"
    custom_settings = {"DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter"}

    async def start(self):
        for n in range(24):
            yield scrapy.Request(f"{self.site}/page/{n % 6}", cb_kwargs={"n": n})


class CoroutineSignalsSpider(Base):
    """Signal handlers that are coroutines: item_scraped, spider_closed."""

    name = "async_signals"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_item, signals.item_scraped)
        return spider

    async def on_item(self, item):
        import asyncio

        await asyncio.sleep(0.01)
        self.crawler.stats.inc_value("async/items")
        item["late"] = True


class LastWordSpider(Base):
    """Stats that closed() and a handler of spider_closed read: those of the whole crawl."""

    name = "last_word"

    async def start(self):
        for n in range(60):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_closed, signals.spider_closed)
        return spider

    def on_closed(self):
        stats = self.crawler.stats
        stats.max_value("last/items", stats.get_value("item_scraped_count"))

    def closed(self, reason):
        stats = self.crawler.stats.get_stats()
        pages = stats["response_received_count"]
        if pages != 60:
            raise AssertionError(f"{pages} pages")
        self.crawler.stats.min_value("last/pages", pages)
