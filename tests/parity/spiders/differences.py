"""What is another thing on workers, and said: docs/differences.md."""

import scrapy
from scrapy import signals
from scrapy.core.scheduler import Scheduler
from scrapy.statscollectors import MemoryStatsCollector


class OwnScheduler(Scheduler):
    """No other than Scrapy's."""


class OwnStats(MemoryStatsCollector):
    """No other than Scrapy's."""


class Opened:
    """A pipeline that counts how often it is opened and closed."""

    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.stats = crawler.stats
        crawler.signals.connect(made.engine_started, signals.engine_started)
        crawler.signals.connect(made.scheduler_empty, signals.scheduler_empty)
        return made

    def engine_started(self):
        self.stats.inc_value("per_worker/engine_started")

    def scheduler_empty(self):
        self.stats.inc_value("per_worker/scheduler_empty")

    def open_spider(self):
        self.stats.inc_value("per_worker/opened")

    def close_spider(self):
        self.stats.inc_value("per_worker/closed")

    def process_item(self, item):
        return item


class Pages(scrapy.Spider):
    """No feature: thirty pages."""

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def parse(self, response):
        yield {"url": response.url}


class NoEffectSpider(Pages):
    """JOBDIR, SCHEDULER and STATS_CLASS of one's own: the same items, and a line for each."""

    name = "no_effect"
    custom_settings = {
        "JOBDIR": "job",
        "SCHEDULER": OwnScheduler,
        "STATS_CLASS": "spiders.differences.OwnStats",
    }


class OpenedSpider(Pages):
    """open_spider, close_spider and engine_started once for each worker that takes part."""

    name = "opened"
    custom_settings = {"ITEM_PIPELINES": {Opened: 1}}


class LinesSpider(Pages):
    """A pipeline that writes one file: each worker writes a part, and all come back."""

    name = "lines_file"

    class Writes:
        def open_spider(self):
            self.file = open("lines.jl", "w")

        def close_spider(self):
            self.file.close()

        def process_item(self, item):
            self.file.write(f"{item['url']}\n")
            return item

    custom_settings = {"ITEM_PIPELINES": {Writes: 1}}
