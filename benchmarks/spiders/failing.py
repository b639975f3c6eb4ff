"""Pages of which some raise, and say when: `-a site=URL -a pages=N -a every=N -a page=PATH`.

`-a told=no`: nobody is told of what it raises; Scrapy logs and counts it all the same.
"""

import time

import scrapy
from scrapy import signals


class FailingSpider(scrapy.Spider):
    name = "failing"
    told = "yes"
    page = "/book/{book}?n={number}"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        if spider.told == "no":
            crawler.signals.connect(spider.be_silent, signals.spider_opened)
        return spider

    def be_silent(self):
        self.crawler.signals.disconnect_all(signals.spider_error)

    async def start(self):
        for number in range(int(self.pages)):
            path = self.page.format(number=number, book=number % 90 + 1, ms=250 + number * 37 % 200)
            yield scrapy.Request(self.site + path, cb_kwargs={"number": number})

    def parse(self, response, number):
        title = response.css("h1::text").get()
        if number % int(self.every) == 0:
            raise ValueError(f"raised at {time.time():.6f}")
        yield {"title": title, "number": number}
