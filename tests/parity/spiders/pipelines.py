"""Item pipelines that need no state of their own between items."""

import asyncio

import scrapy
from itemadapter import ItemAdapter
from scrapy.exceptions import CloseSpider, DropItem
from twisted.internet.defer import Deferred


class Adds:
    """Adds its own number to the item's list."""

    number = 0

    def process_item(self, item):
        item["passed"] = [*item.get("passed", []), self.number]
        return item


class First(Adds):
    number = 1


class Second(Adds):
    number = 2


class Third(Adds):
    number = 3

    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.label = crawler.settings["LABEL"]
        made.crawler = crawler
        return made

    def open_spider(self):
        self.opened = True

    def process_item(self, item):
        item["label"] = self.label
        item["opened"] = self.opened
        item["spider"] = self.crawler.spider.name
        return super().process_item(item)

    def close_spider(self):
        self.crawler.stats.set_value("closed/third", True)


class Drops:
    def process_item(self, item):
        if ItemAdapter(item)["n"] % 3 == 0:
            raise DropItem(f"no {item['n']}")
        return item


class Fails:
    def process_item(self, item):
        if item["n"] % 5 == 0:
            raise ValueError(f"cannot {item['n']}")
        return item


class Sleeps:
    async def process_item(self, item):
        await asyncio.sleep(0.01)
        item["slept"] = True
        return item


class Deferreds:
    def process_item(self, item):
        done = Deferred()
        asyncio.get_running_loop().call_later(0.01, done.callback, {**item, "deferred": True})
        return done


class Replaces:
    def process_item(self, item):
        return {"was": type(item).__name__, **item}


class Asks:
    """Asks another page for each item."""

    @classmethod
    def from_crawler(cls, crawler):
        made = cls()
        made.crawler = crawler
        return made

    async def process_item(self, item):
        from scrapy.utils.defer import maybe_deferred_to_future

        request = scrapy.Request(f"{self.crawler.spider.site}/review/{item['n']}")
        engine = self.crawler.engine
        if hasattr(engine, "download_async"):
            response = await engine.download_async(request)
        else:
            response = await maybe_deferred_to_future(engine.download(request))
        item["review"] = response.css("h1::text").get()
        return item


class Closes:
    """Ends the crawl at an item."""

    def process_item(self, item):
        if item["n"] == 20:
            raise CloseSpider("seen enough")
        return item


class Numbers(scrapy.Spider):
    """No feature: thirty pages with a number."""

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        yield {"n": n}


class OrderSpider(Numbers):
    """Pipelines in their order, from_crawler, open_spider, close_spider."""

    name = "pipelines"
    custom_settings = {"ITEM_PIPELINES": {Third: 300, First: 100, Second: 200}, "LABEL": "L"}


class DropSpider(Numbers):
    """DropItem, and errors in pipelines."""

    name = "drop"
    custom_settings = {"ITEM_PIPELINES": {Drops: 1, Fails: 2, "spiders.pipelines.First": 3}}


class AsyncSpider(Numbers):
    """async process_item, Deferreds, and a pipeline that replaces items."""

    name = "async_pipelines"
    custom_settings = {"ITEM_PIPELINES": {Sleeps: 1, Deferreds: 2, Replaces: 3}}


class AskSpider(Numbers):
    """A pipeline that downloads a page for each item."""

    name = "asking_pipeline"
    custom_settings = {"ITEM_PIPELINES": {Asks: 1}}


class CloseSpiderInPipelineSpider(Numbers):
    """CloseSpider raised in a pipeline."""

    name = "close_in_pipeline"
    custom_settings = {"ITEM_PIPELINES": {Closes: 1}, "CONCURRENT_REQUESTS": 4}
