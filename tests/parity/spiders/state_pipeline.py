"""A pipeline that remembers what it has seen."""

import scrapy
from scrapy.exceptions import DropItem


class NoDuplicates:
    def __init__(self):
        self.seen = set()

    def process_item(self, item):
        if item["title"] in self.seen:
            raise DropItem("seen")
        self.seen.add(item["title"])
        return item


class SeenSpider(scrapy.Spider):
    """A pipeline with a set of what it has seen: one worker."""

    name = "seen_pipeline"
    custom_settings = {"ITEM_PIPELINES": {NoDuplicates: 1}}

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        yield {"title": n % 7}
