"""Spiders that keep something on self."""

import scrapy


class TokenSpider(scrapy.Spider):
    """A token set at login and used by other callbacks: one worker."""

    name = "token"

    async def start(self):
        yield scrapy.Request(f"{self.site}/page/0", self.log_in)

    def log_in(self, response):
        self.token = response.css("h1::text").get()
        for n in range(1, 20):
            yield response.follow(f"/echo?n={n}", headers={"X-Token": self.token})

    def parse(self, response):
        yield {"token": response.json()["headers"]["x-token"], "own": self.token}
