"""How crawls end: by counts, by CloseSpider from anywhere, kept open for more."""

import scrapy
from scrapy import signals
from scrapy.exceptions import CloseSpider, DontCloseSpider


class Many(scrapy.Spider):
    """No feature: pages without an end."""

    custom_settings = {"CONCURRENT_REQUESTS": 4}

    async def start(self):
        for n in range(300):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def parse(self, response):
        yield {"url": response.url}


class ItemCountSpider(Many):
    """CLOSESPIDER_ITEMCOUNT over all workers."""

    name = "close_items"
    custom_settings = {"CLOSESPIDER_ITEMCOUNT": 30, "CONCURRENT_REQUESTS": 4}


class PageCountSpider(Many):
    """CLOSESPIDER_PAGECOUNT over all workers."""

    name = "close_pages"
    custom_settings = {"CLOSESPIDER_PAGECOUNT": 30, "CONCURRENT_REQUESTS": 4}


class ErrorCountSpider(Many):
    """CLOSESPIDER_ERRORCOUNT over all workers."""

    name = "close_errors"
    custom_settings = {"CLOSESPIDER_ERRORCOUNT": 5, "CONCURRENT_REQUESTS": 4}

    def parse(self, response):
        yield {"url": response.url}
        raise ValueError("always")


class TimeoutSpider(Many):
    """CLOSESPIDER_TIMEOUT."""

    name = "close_timeout"
    custom_settings = {"CLOSESPIDER_TIMEOUT": 2, "CONCURRENT_REQUESTS": 2, "DOWNLOAD_DELAY": 0.1}


class NoItemSpider(Many):
    """CLOSESPIDER_TIMEOUT_NO_ITEM: pages come, items do not."""

    name = "close_no_item"
    custom_settings = {
        "CLOSESPIDER_TIMEOUT_NO_ITEM": 2,
        "CONCURRENT_REQUESTS": 2,
        "DOWNLOAD_DELAY": 0.1,
    }

    def parse(self, response):
        if response.url.endswith("/0"):
            yield {"url": response.url}


class NoItemPagesSpider(Many):
    """CLOSESPIDER_PAGECOUNT_NO_ITEM."""

    name = "close_pages_no_item"
    custom_settings = {"CLOSESPIDER_PAGECOUNT_NO_ITEM": 30, "CONCURRENT_REQUESTS": 4}

    def parse(self, response):
        return None


class CloseInCallbackSpider(Many):
    """CloseSpider raised in a callback, with a reason."""

    name = "close_in_callback"

    def parse(self, response):
        yield {"url": response.url}
        if response.url.endswith("/20"):
            raise CloseSpider("enough of it")


class CloseInErrbackSpider(scrapy.Spider):
    """CloseSpider raised in an errback."""

    name = "close_in_errback"
    custom_settings = {"CONCURRENT_REQUESTS": 4}

    async def start(self):
        for n in range(10):
            yield scrapy.Request(f"{self.site}/page/{n}", priority=1)
        yield scrapy.Request(f"{self.site}/status/404", errback=self.failed)

    def parse(self, response):
        yield {"url": response.url}

    def failed(self, failure):
        raise CloseSpider("blocked")


class CloseInStartSpider(scrapy.Spider):
    """CloseSpider raised in start()."""

    name = "close_in_start"

    async def start(self):
        yield {"first": 1}
        raise CloseSpider("no start")

    def parse(self, response):
        yield {"url": response.url}


class CloseByEngineSpider(Many):
    """crawler.engine.close_spider called with a reason of one's own."""

    name = "close_by_engine"

    def parse(self, response):
        yield {"url": response.url}
        if response.url.endswith("/20"):
            engine = self.crawler.engine
            if hasattr(engine, "close_spider_async"):
                import asyncio

                self.task = asyncio.ensure_future(engine.close_spider_async(reason="by hand"))
            else:
                engine.close_spider(self, "by hand")


class IdleSpider(scrapy.Spider):
    """spider_idle that schedules more three times, with DontCloseSpider."""

    name = "idle"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.idle, signals.spider_idle)
        return spider

    async def start(self):
        yield scrapy.Request(f"{self.site}/page/0")

    def idle(self):
        rounds = self.crawler.stats.get_value("rounds", 0)
        if rounds < 3:
            self.crawler.stats.inc_value("rounds")
            for n in range(6):
                self.crawler.engine.crawl(scrapy.Request(f"{self.site}/page/{rounds}-{n}"))
            raise DontCloseSpider

    def parse(self, response):
        yield {"url": response.url}


class IdleReasonSpider(scrapy.Spider):
    """CloseSpider raised in spider_idle, with a reason."""

    name = "idle_reason"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.idle, signals.spider_idle)
        return spider

    async def start(self):
        for n in range(6):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def idle(self):
        raise CloseSpider("nothing left")

    def parse(self, response):
        yield {"url": response.url}


class ClosedSpider(scrapy.Spider):
    """closed(reason) and the spider_closed signal, with what they log."""

    name = "closed"

    async def start(self):
        for n in range(6):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def parse(self, response):
        yield {"url": response.url}

    def closed(self, reason):
        assert reason == "finished", reason


class CloseInSignalSpider(Many):
    """crawler.engine.close_spider in a handler of item_scraped."""

    name = "close_in_signal"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_item, signals.item_scraped)
        return spider

    def on_item(self, item):
        if item["url"].endswith("/20"):
            import asyncio

            engine = self.crawler.engine
            if hasattr(engine, "close_spider_async"):
                self.task = asyncio.ensure_future(engine.close_spider_async(reason="by a signal"))
            else:
                engine.close_spider(self, "by a signal")


class CloseInMiddlewareSpider(Many):
    """CloseSpider raised in a spider middleware."""

    name = "close_in_middleware"

    class Closes:
        def process_spider_output(self, response, result):
            for each in result:
                if response.url.endswith("/20"):
                    raise CloseSpider("by a middleware")
                yield each

        async def process_spider_output_async(self, response, result):
            async for each in result:
                if response.url.endswith("/20"):
                    raise CloseSpider("by a middleware")
                yield each

    custom_settings = {"SPIDER_MIDDLEWARES": {Closes: 1}, "CONCURRENT_REQUESTS": 4}


class FifoSpider(scrapy.Spider):
    """SCHEDULER_MEMORY_QUEUE first in, first out: with one request at a time that is the order."""

    name = "fifo"
    custom_settings = {
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
        "CONCURRENT_REQUESTS": 1,
    }

    async def start(self):
        yield scrapy.Request(f"{self.site}/deep/1")

    def parse(self, response):
        yield {"url": response.url}
        if "/deep/" in response.url and len(response.url) < 30:
            yield from response.follow_all(css="a")


class SomeItemsSpider(Many):
    """CLOSESPIDER_TIMEOUT_NO_ITEM and a site asked slowly: while items come it does not end."""

    name = "items_go_on"
    custom_settings = {
        "CLOSESPIDER_TIMEOUT_NO_ITEM": 2,
        "DOWNLOAD_DELAY": 0.5,
    }

    async def start(self):
        for n in range(80):
            slot = f"{'bare' if n % 2 else 'items'} {n % 8}"
            yield scrapy.Request(f"{self.site}/page/{n}", meta={"download_slot": slot})

    def parse(self, response):
        if response.meta["download_slot"].startswith("items"):
            yield {"url": response.url}
