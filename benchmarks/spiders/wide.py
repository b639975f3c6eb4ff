"""A spider whose start requests are all there is: the queue is never empty."""

import scrapy


class WideSpider(scrapy.Spider):
    name = "wide"
    custom_settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": 16}

    async def start(self):
        for number in range(int(self.pages)):
            yield scrapy.Request(f"{self.site}/book/{number % 90 + 1}?n={number}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get(), "url": response.url}
