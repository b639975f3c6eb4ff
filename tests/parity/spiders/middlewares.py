"""Downloader and spider middlewares of one's own, all hooks."""

import scrapy
from scrapy.exceptions import IgnoreRequest
from scrapy.http import HtmlResponse


class Answers:
    """process_request that returns responses, requests, and refuses."""

    def process_request(self, request):
        if "made" in request.url:
            body = b"<h1>made here</h1>"
            return HtmlResponse(request.url, body=body, request=request)
        if "other" in request.url:
            return request.replace(url=request.url.replace("other", "page"))
        if "never" in request.url:
            raise IgnoreRequest("never")
        request.headers["X-Own"] = "yes"
        return None


class Changes:
    """process_response that replaces responses, asks again and refuses."""

    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.stats = crawler.stats
        return made

    def process_response(self, request, response):
        self.stats.inc_value("changes/responses")
        if "change" in request.url:
            return response.replace(body=b"<h1>changed</h1>")
        if "again" in request.url and not request.meta.get("again"):
            return request.replace(dont_filter=True, meta={"again": True})
        if "refuse" in request.url:
            raise IgnoreRequest("refused")
        return response


class Rescues:
    """process_exception that answers, and async hooks."""

    async def process_request(self, request):
        return None

    def process_exception(self, request, exception):
        if "rescue" in request.url:
            return HtmlResponse(request.url, body=b"<h1>rescued</h1>", request=request)
        if "instead" in request.url:
            return request.replace(url=request.url.replace("reset", "page"))
        return None


class Output:
    """Spider middleware: input, output and start."""

    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.stats = crawler.stats
        return made

    def process_spider_input(self, response):
        self.stats.inc_value("output/input")
        if "invalid" in response.url:
            raise ValueError("invalid")

    async def process_spider_output_async(self, response, result):
        async for each in result:
            if isinstance(each, dict):
                each["by"] = "middleware"
            yield each

    def process_spider_output(self, response, result):
        for each in result:
            if isinstance(each, dict):
                each["by"] = "middleware"
            yield each

    def process_spider_exception(self, response, exception):
        return [{"recovered": response.url, "from": type(exception).__name__}]

    async def process_start(self, start):
        async for each in start:
            yield each
            if isinstance(each, scrapy.Request) and each.url.endswith("/1"):
                yield scrapy.Request(each.url + "-added", cb_kwargs=each.cb_kwargs)


class DownloaderMiddlewareSpider(scrapy.Spider):
    """Downloader middlewares: process_request, process_response and process_exception."""

    name = "downloader_middlewares"
    custom_settings = {
        "DOWNLOADER_MIDDLEWARES": {Answers: 100, Changes: 200, "spiders.middlewares.Rescues": 300},
        "RETRY_ENABLED": False,
    }

    async def start(self):
        for kind in ("made", "other", "never", "change", "again", "refuse", "plain"):
            for n in range(3):
                yield scrapy.Request(f"{self.site}/page/{kind}{n}", errback=self.failed)
        for kind in ("rescue", "instead", "lost"):
            url = f"{self.site}/reset/{kind}"
            yield scrapy.Request(url, method="POST", errback=self.failed)
        yield scrapy.Request(f"{self.site}/echo", callback=self.parse_echo)

    def parse(self, response):
        yield {"url": response.url, "title": response.css("h1::text").get()}

    def parse_echo(self, response):
        yield {"own": response.json()["headers"].get("x-own")}

    def failed(self, failure):
        ignored = bool(failure.check(IgnoreRequest))
        yield {"failed": failure.request.url, "ignored": ignored}


class SpiderMiddlewareSpider(scrapy.Spider):
    """Spider middlewares: input, output, exception and start."""

    name = "spider_middlewares"
    custom_settings = {"SPIDER_MIDDLEWARES": {Output: 100}}

    async def start(self):
        for n in range(12):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n}, errback=None)
        yield scrapy.Request(f"{self.site}/page/invalid", cb_kwargs={"n": 0})

    def parse(self, response, n):
        yield {"url": response.url}
        if n == 5:
            raise KeyError("five")
        yield response.follow(f"/plain/{n}", self.parse_plain)

    def parse_plain(self, response):
        yield {"plain": response.url}


class DisabledSpider(scrapy.Spider):
    """Built-in middlewares that are switched off and moved."""

    name = "disabled_middlewares"
    custom_settings = {
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.useragent.UserAgentMiddleware": None,
            "scrapy.downloadermiddlewares.redirect.RedirectMiddleware": None,
            "scrapy.downloadermiddlewares.cookies.CookiesMiddleware": 50,
        },
        "SPIDER_MIDDLEWARES": {"scrapy.spidermiddlewares.httperror.HttpErrorMiddleware": None},
    }

    async def start(self):
        yield scrapy.Request(f"{self.site}/cookie?a=1", self.more)

    def more(self, response):
        for n in range(6):
            yield response.follow(f"/redirect/{n}")
            yield response.follow(f"/status/404?n={n}")

    def parse(self, response):
        yield {"url": response.url, "status": response.status}
