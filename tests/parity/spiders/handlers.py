"""Other ways to pages: handlers of one's own, proxies, files, curl commands."""

from pathlib import Path

import scrapy
from scrapy.http import HtmlResponse
from scrapy.utils.request import request_from_dict


class Memory:
    """Downloads mem:// addresses: there is nothing to download."""

    lazy = False

    def __init__(self, settings=None, crawler=None):
        pass

    @classmethod
    def from_crawler(cls, crawler):
        return cls()

    async def download_request(self, request, spider=None):
        return HtmlResponse(request.url, body=f"<h1>{request.url}</h1>".encode(), request=request)

    async def close(self):
        pass


class HandlerSpider(scrapy.Spider):
    """DOWNLOAD_HANDLERS with a handler of one's own."""

    name = "handler"
    custom_settings = {"DOWNLOAD_HANDLERS": {"mem": "spiders.handlers.Memory"}}

    async def start(self):
        for n in range(12):
            yield scrapy.Request(f"mem://pages/{n}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get()}


class ProxySpider(scrapy.Spider):
    """meta proxy: pages of another host through a proxy."""

    name = "proxy"

    async def start(self):
        for n in range(12):
            yield scrapy.Request(f"http://shop.invalid/page/{n}", meta={"proxy": self.site})

    def parse(self, response):
        yield {"url": response.url, "title": response.css("h1::text").get()}


class FileSpider(scrapy.Spider):
    """file: addresses of files that every worker has."""

    name = "file_scheme"

    async def start(self):
        yield scrapy.Request(Path("/etc/hostname").as_uri())
        yield scrapy.Request(Path("/etc/does-not-exist").as_uri(), errback=self.failed)

    def parse(self, response):
        yield {"bytes": len(response.body)}

    def failed(self, failure):
        yield {"failed": failure.request.url}


class CurlSpider(scrapy.Spider):
    """Requests made of a curl command, and of a dictionary."""

    name = "curl"

    async def start(self):
        for n in range(6):
            yield scrapy.Request.from_curl(
                f"curl '{self.site}/echo?n={n}' -H 'X-Curl: ja' --data-raw 'a={n}'"
            )
        request = scrapy.Request(f"{self.site}/echo?dict", self.parse, cb_kwargs={"kind": "dict"})
        yield request_from_dict(request.to_dict(spider=self), spider=self)

    def parse(self, response, kind="curl"):
        data = response.json()
        data["headers"].pop("accept", None)
        yield {"kind": kind, "ip": str(response.ip_address), **data}
