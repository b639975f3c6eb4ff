"""How fast a site may be asked: over all workers, as by one process."""

import time

import scrapy
from scrapy.http import TextResponse


class Ticks(scrapy.Spider):
    """No feature: pages, one after the other."""

    count = 30

    async def start(self):
        for n in range(int(self.count)):
            yield scrapy.Request(f"{self.site}/tick/{n}")

    def parse(self, response):
        yield {"url": response.url}


class DelaySpider(Ticks):
    """DOWNLOAD_DELAY, fixed."""

    name = "delay"
    custom_settings = {"DOWNLOAD_DELAY": 0.1, "RANDOMIZE_DOWNLOAD_DELAY": False}


class JitterSpider(Ticks):
    """DOWNLOAD_DELAY with RANDOMIZE_DOWNLOAD_DELAY."""

    name = "jitter"
    custom_settings = {"DOWNLOAD_DELAY": 0.1}


class SlotDelaySpider(Ticks):
    """DOWNLOAD_SLOTS with a delay of its own."""

    name = "slot_delay"
    custom_settings = {
        "DOWNLOAD_SLOTS": {"127.0.0.1": {"delay": 0.1, "concurrency": 1, "randomize_delay": False}}
    }


class ThrottleSpider(Ticks):
    """AUTOTHROTTLE_ENABLED."""

    name = "throttle"
    custom_settings = {
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": 0.1,
        "AUTOTHROTTLE_MAX_DELAY": 0.2,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": 0.5,
    }


class DelayAttributeSpider(Ticks):
    """download_delay as an attribute of the spider."""

    name = "delay_attribute"
    download_delay = 0.1
    custom_settings = {"RANDOMIZE_DOWNLOAD_DELAY": False}


class ConcurrencySpider(scrapy.Spider):
    """CONCURRENT_REQUESTS_PER_DOMAIN over all workers."""

    name = "per_domain"
    custom_settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": 3}

    async def start(self):
        for n in range(40):
            yield scrapy.Request(f"{self.site}/slow/{n}?s=0.05")

    def parse(self, response):
        yield {"url": response.url}


class OneAtATimeSpider(scrapy.Spider):
    """CONCURRENT_REQUESTS_PER_DOMAIN = 1."""

    name = "one_at_a_time"
    custom_settings = {"CONCURRENT_REQUESTS_PER_DOMAIN": 1}

    async def start(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/page/{n}")

    def parse(self, response):
        yield {"url": response.url}


class SlotsSpider(scrapy.Spider):
    """DOWNLOAD_SLOTS and download_slot in meta."""

    name = "slots"
    custom_settings = {
        "DOWNLOAD_SLOTS": {
            "one": {"concurrency": 1},
            "two": {"concurrency": 2},
            "slow": {"delay": 0.1},
        }
    }

    async def start(self):
        for n in range(24):
            slot = ("one", "two", "slow", "own")[n % 4]
            yield scrapy.Request(f"{self.site}/page/{n}", meta={"download_slot": slot})

    def parse(self, response):
        yield {"url": response.url, "slot": response.meta["download_slot"]}


class Clock:
    """Downloads clock:// addresses: the time when it was asked to."""

    lazy = False

    def __init__(self, settings=None, crawler=None):
        pass

    @classmethod
    def from_crawler(cls, crawler):
        return cls()

    async def download_request(self, request, spider=None):
        return TextResponse(request.url, body=repr(time.monotonic()).encode(), request=request)

    async def close(self):
        pass


class SendingSpider(scrapy.Spider):
    """DOWNLOAD_DELAY, at the moment of sending."""

    name = "sending"
    count = 30
    custom_settings = {
        "DOWNLOAD_HANDLERS": {"clock": "spiders.limits.Clock"},
        "DOWNLOAD_DELAY": 0.1,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
    }

    async def start(self):
        for n in range(int(self.count)):
            yield scrapy.Request(f"clock://site/{n}")

    def parse(self, response):
        if int(self.count) == 30:
            yield {"url": response.url}
        else:
            yield {"at": float(response.text)}
