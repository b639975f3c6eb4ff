"""A spider that numbers its items."""

import scrapy


class CounterSpider(scrapy.Spider):
    """A counter on self in items: one worker."""

    name = "counter"
    count = 0

    async def start(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def parse(self, response):
        self.count += 1
        yield {"number": self.count}
