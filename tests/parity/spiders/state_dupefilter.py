"""A dupefilter with a memory of its own."""

import scrapy
from scrapy.dupefilters import BaseDupeFilter


class ByPath(BaseDupeFilter):
    """Pages that differ only in their query are one."""

    def __init__(self):
        self.paths = set()

    def request_seen(self, request):
        path = request.url.partition("?")[0]
        if path in self.paths:
            return True
        self.paths.add(path)
        return False


class OwnFilterSpider(scrapy.Spider):
    """DUPEFILTER_CLASS of one's own with request_seen: one worker."""

    name = "own_dupefilter"
    custom_settings = {"DUPEFILTER_CLASS": ByPath}

    async def start(self):
        for n in range(30):
            yield scrapy.Request(f"{self.site}/page/{n % 10}?n={n}", dont_filter=False)

    def parse(self, response):
        yield {"path": response.url.partition("?")[0]}
