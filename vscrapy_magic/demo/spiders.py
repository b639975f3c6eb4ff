"""Owns the source of the spider that `vscrapy demo` crawls the site with.

A string, because nothing in this package imports Scrapy. It runs in a child.
"""

BOOKS_NAME = "demo_books"

BOOKS = '''\
import scrapy


class DemoBooksSpider(scrapy.Spider):
    """Every book of the demo shop; `-a site=URL` says where the shop is."""

    name = "demo_books"

    async def start(self):
        yield scrapy.Request(f"{self.site.rstrip('/')}/catalogue?page=1")

    def parse(self, response):
        yield from response.follow_all(css="article.product_pod h3 a", callback=self.parse_book)
        yield from response.follow_all(css="li.next a")

    def parse_book(self, response):
        yield {
            "title": response.css("h1::text").get(),
            "author": response.css("p.author span::text").get(),
            "price": response.css("p.price_color::text").get(),
            "url": response.url,
        }
        yield from response.follow_all(css="a.related", callback=self.parse_book)
'''
