"""HTTPCACHE, and other settings of the downloader."""

import scrapy


class CacheSpider(scrapy.Spider):
    """HTTPCACHE_ENABLED: what was fetched once is not fetched again."""

    name = "http_cache"
    custom_settings = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": "cache"}

    async def start(self):
        for n in range(40):
            yield scrapy.Request(f"{self.site}/cached/{n}", self.first)

    def first(self, response):
        yield {"first": response.css("h1::text").get(), "flags": response.flags}
        yield response.follow(response.url, dont_filter=True)

    def parse(self, response):
        yield {"second": response.css("h1::text").get(), "flags": response.flags}


class Rfc2616Spider(scrapy.Spider):
    """HTTPCACHE_POLICY RFC2616 with ETags."""

    name = "http_cache_rfc"
    custom_settings = {
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_DIR": "cache-rfc",
        "HTTPCACHE_POLICY": "scrapy.extensions.httpcache.RFC2616Policy",
    }

    async def start(self):
        for n in range(40):
            yield scrapy.Request(f"{self.site}/cached/{n}", self.first)

    def first(self, response):
        yield {"first": response.css("h1::text").get()}
        yield response.follow(response.url, dont_filter=True)

    def parse(self, response):
        yield {"second": response.css("h1::text").get()}


class HeadersSpider(scrapy.Spider):
    """USER_AGENT, DEFAULT_REQUEST_HEADERS, and those of a request."""

    name = "headers"
    custom_settings = {
        "USER_AGENT": "parity",
        "DEFAULT_REQUEST_HEADERS": {"Accept-Language": "de", "X-Default": "1"},
    }

    async def start(self):
        for n in range(10):
            yield scrapy.Request(f"{self.site}/echo?n={n}", headers={"X-N": str(n)})

    def parse(self, response):
        yield response.json()
