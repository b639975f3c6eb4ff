"""Every child logs numbered lines at a steady rate: `-a rate=LINES_PER_S -a seconds=S`.

How many it has logged is its last line. Slow pages keep all children there meanwhile.
"""

import logging
import time

import scrapy
from scrapy import signals
from twisted.internet.task import LoopingCall

logger = logging.getLogger("ticking")
TICK_S = 0.01


class TickingSpider(scrapy.Spider):
    name = "ticking"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.begin, signals.spider_opened)
        crawler.signals.connect(spider.finish, signals.spider_closed)
        return spider

    def begin(self):
        self.count, self.since = 0, time.monotonic()
        self.loop = LoopingCall(self.tick)
        self.loop.start(TICK_S, now=False)

    def tick(self):
        gone_s = min(time.monotonic() - self.since, float(self.seconds))
        while self.count < int(float(self.rate) * gone_s):
            self.count += 1
            logger.info("line %d of one of the workers, as long as many are", self.count)

    def finish(self):
        if self.loop.running:
            self.loop.stop()
        logger.warning("logged %d", self.count)

    async def start(self):
        for number in range(int(self.pages)):
            yield scrapy.Request(f"{self.site}/slow/{number}?ms=500")

    def parse(self, response):
        pass
