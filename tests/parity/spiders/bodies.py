"""What responses hold."""

import scrapy


class PackedSpider(scrapy.Spider):
    """gzip, deflate, br and zstd bodies."""

    name = "packed"

    async def start(self):
        for how in ("gzip", "deflate", "br", "zstd"):
            for n in range(4):
                yield scrapy.Request(f"{self.site}/packed/{n}/{how}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get(), "bytes": len(response.body)}


class EncodedSpider(scrapy.Spider):
    """utf-8, utf-16, gb18030, and latin-1 by header and by meta tag."""

    name = "encoded"

    async def start(self):
        for how in ("utf-8", "utf-16", "latin-1", "latin-1-meta", "gb18030"):
            yield scrapy.Request(f"{self.site}/encoded/{how}")

    def parse(self, response):
        yield {"text": response.css("h1::text").get(), "encoding": response.encoding, "größe": "ü"}


class BinarySpider(scrapy.Spider):
    """Binary responses and their classes."""

    name = "binary"

    async def start(self):
        for n in range(10):
            yield scrapy.Request(f"{self.site}/binary/{n}")
        for path in ("image/1.png", "json?page=2", "feed.xml", "archive.tar.gz"):
            yield scrapy.Request(f"{self.site}/{path}")

    def parse(self, response):
        yield {
            "type": type(response).__name__,
            "bytes": len(response.body),
            "sum": sum(response.body),
        }


class JsonSpider(scrapy.Spider):
    """JSON pages: response.json() and jmespath."""

    name = "json"

    async def start(self):
        yield scrapy.Request(f"{self.site}/json")

    def parse(self, response):
        data = response.json()
        yield from data["data"]
        yield {"ids": response.jmespath("data[*].id").getall()}
        if data["more"]:
            yield response.follow(f"/json?page={data['page'] + 1}")


class BigSpider(scrapy.Spider):
    """A response of 50 MB, and ten of 1 MB."""

    name = "big"
    custom_settings = {"DOWNLOAD_WARNSIZE": 40_000_000}

    async def start(self):
        yield scrapy.Request(f"{self.site}/big?mb=50")
        for n in range(10):
            yield scrapy.Request(f"{self.site}/big?mb=1&n={n}")

    def parse(self, response):
        yield {"bytes": len(response.body), "end": response.text[-20:]}


class BigItemSpider(scrapy.Spider):
    """Items of 1 MB, and a thousand small ones of one page."""

    name = "big_items"

    async def start(self):
        for n in range(3):
            yield scrapy.Request(f"{self.site}/big?mb=1&n={n}")
        yield scrapy.Request(f"{self.site}/page/1", self.parse_many)

    def parse(self, response):
        yield {"page": response.text, "url": response.url}

    def parse_many(self, response):
        for n in range(1000):
            yield {"n": n}
