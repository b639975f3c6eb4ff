"""Kinds of spiders, and how they begin."""

import scrapy
from scrapy.http import TextResponse
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, CSVFeedSpider, Rule, SitemapSpider, XMLFeedSpider


class StartUrlsSpider(scrapy.Spider):
    """start_urls and parse, following pages and items."""

    name = "start_urls"

    def __init__(self, site, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/", f"{site}/list?page=3", f"{site}/list?page=3"]

    def parse(self, response):
        yield {"title": response.css("title::text").get(), "url": response.url}
        yield from response.follow_all(css="a")


class AsyncStartSpider(scrapy.Spider):
    """async def start, that yields requests and items."""

    name = "async_start"

    async def start(self):
        yield {"first": True}
        for n in range(1, 31):
            yield scrapy.Request(f"{self.site}/item/{n}", cb_kwargs={"n": n})
            if n % 10 == 0:
                yield {"asked": n}

    def parse(self, response, n):
        yield {"n": n, "price": response.css(".price::text").get()}


class StartRequestsSpider(scrapy.Spider):
    """start_requests beside start, for older Scrapys."""

    name = "start_requests"

    def start_requests(self):
        for n in range(20):
            yield scrapy.Request(f"{self.site}/item/{n}", dont_filter=True)

    async def start(self):
        for request in self.start_requests():
            yield request

    def parse(self, response):
        yield {"url": response.url}


class RulesSpider(CrawlSpider):
    """CrawlSpider: rules, follow, process_links, process_request, parse_start_url."""

    name = "rules"
    rules = (
        Rule(LinkExtractor(allow=r"/list\?page="), callback="parse_page", follow=True),
        Rule(
            LinkExtractor(allow=r"/item/", restrict_css=".all"),
            callback="parse_item",
            process_links="only_even",
            process_request="with_meta",
            cb_kwargs={"kind": "item"},
        ),
        Rule(LinkExtractor(allow=r"/review/1\d$")),
    )

    def __init__(self, *args, site, **kwargs):
        super().__init__(*args, **kwargs)
        self.start_urls = [f"{site}/"]

    def only_even(self, links):
        return [link for link in links if int(link.url.rpartition("/")[2]) % 2 == 0]

    def with_meta(self, request, response):
        request.meta["from"] = response.css("title::text").get()
        return request

    def parse_start_url(self, response):
        yield {"start": response.url}

    def parse_page(self, response):
        yield {"page": response.url}

    def parse_item(self, response, kind):
        yield {
            kind: response.url,
            "from": response.meta["from"],
            "link": response.meta["link_text"],
        }


class XmlSpider(XMLFeedSpider):
    """XMLFeedSpider with iternodes, adapt_response and process_results."""

    name = "xml"
    itertag = "item"

    def __init__(self, site, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/feed.xml"]

    def adapt_response(self, response):
        return response.replace(body=response.body.replace(b"rss", b"feed"))

    def parse_node(self, response, node):
        return {"id": int(node.xpath("@id").get()), "name": node.xpath("name/text()").get()}

    def process_results(self, response, results):
        return [result | {"of": response.url} for result in results]


class NamespaceSpider(XMLFeedSpider):
    """XMLFeedSpider with namespaces and the xml iterator, that follows."""

    name = "namespaces"
    iterator = "xml"
    namespaces = [("n", "http://example.com/n")]
    itertag = "n:row"

    def __init__(self, site, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/names.xml"]

    def parse_node(self, response, node):
        n = node.xpath("n:v/text()").get()
        return scrapy.Request(response.urljoin(f"/page/{n}"), self.parse_page, cb_kwargs={"n": n})

    def parse_page(self, response, n):
        yield {"n": n, "title": response.css("h1::text").get()}


class CsvSpider(CSVFeedSpider):
    """CSVFeedSpider with delimiter, quotechar and headers."""

    name = "csv"
    delimiter = ";"
    quotechar = "'"
    headers = ["id", "name", "price"]

    def __init__(self, site, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/feed.csv"]

    def parse_row(self, response, row):
        yield dict(row)
        yield response.follow(f"/item/{row['id']}", self.parse_item)

    def parse_item(self, response):
        yield {"url": response.url}


class MapSpider(SitemapSpider):
    """SitemapSpider of robots.txt: index, gzip, rules and a filter."""

    name = "sitemap"
    sitemap_rules = [("/item/", "parse_item"), ("/page/", "parse_page")]

    def __init__(self, site, **kwargs):
        self.sitemap_urls = [f"{site}/robots.txt"]
        super().__init__(**kwargs)

    def sitemap_filter(self, entries):
        for entry in entries:
            if not entry["loc"].endswith("/3"):
                yield entry

    def parse_item(self, response):
        yield {"item": response.css("h1::text").get()}

    def parse_page(self, response):
        yield {"page": response.css("h1::text").get()}


class FromCrawlerSpider(scrapy.Spider):
    """from_crawler that reads settings and connects signals; custom_settings; arguments."""

    name = "from_crawler"
    custom_settings = {"USER_AGENT": "parity/1", "DEFAULT_REQUEST_HEADERS": {"X-Own": "yes"}}

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.pages = crawler.settings.getint("PAGES", 12)
        crawler.signals.connect(spider.on_item, scrapy.signals.item_scraped)
        return spider

    def on_item(self, item):
        self.crawler.stats.inc_value("seen/by_signal")

    async def start(self):
        for n in range(self.pages):
            yield scrapy.Request(f"{self.site}/echo?n={n}&word={self.word}")

    def parse(self, response):
        yield response.json()


class UpdateSettingsSpider(scrapy.Spider):
    """update_settings, and a logger, a name and a custom attribute given at run time."""

    name = "update_settings"

    @classmethod
    def update_settings(cls, settings):
        super().update_settings(settings)
        settings.set("DEPTH_LIMIT", 3, priority="spider")
        settings.setdefault("WORD", "from update_settings")

    async def start(self):
        yield scrapy.Request(f"{self.site}/deep/1")

    def parse(self, response):
        self.logger.info("page %s", response.url)
        yield {"depth": response.meta["depth"], "word": self.settings["WORD"]}
        yield from response.follow_all(css="a")


class DataSpider(scrapy.Spider):
    """Pages that no site sends: data: addresses, and responses made in the spider."""

    name = "data"

    async def start(self):
        for n in range(15):
            yield scrapy.Request(f"data:text/plain;charset=utf-8,Zahl%20{n}%20%C3%BC")

    def parse(self, response):
        made = TextResponse("http://example.com/", body=response.body, encoding="utf-8")
        yield {"text": made.text}
