"""One page, one item: how long until it is there?"""

import scrapy


class FirstSpider(scrapy.Spider):
    name = "first"

    async def start(self):
        yield scrapy.Request(f"{self.site}/book/1")

    def parse(self, response):
        yield {"title": response.css("h1::text").get()}
