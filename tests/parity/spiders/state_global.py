"""A spider that gathers in a global, and yields at the end."""

import scrapy

WORDS = {}


class GlobalSpider(scrapy.Spider):
    """A module global that callbacks fill and read: one worker."""

    name = "global_state"

    async def start(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/page/{n}", cb_kwargs={"n": n})

    def parse(self, response, n):
        WORDS[n % 4] = WORDS.get(n % 4, 0) + 1
        if sum(WORDS.values()) == 20:
            yield {"words": {str(key): WORDS[key] for key in sorted(WORDS)}}
