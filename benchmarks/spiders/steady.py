"""Pages without end, an item each: `-a site=URL -a pages=N`."""

import scrapy

BOOKS = 190  # of the demo site, so that it renders each once


class SteadySpider(scrapy.Spider):
    name = "steady"

    async def start(self):
        for number in range(1, int(self.pages) + 1):
            yield scrapy.Request(f"{self.site}/book/{number % BOOKS + 1}?n={number}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get()}
