"""Spiders that use popular add-ons as these tell their users to; each crawls pages of `site.py`."""

from dataclasses import dataclass

from tests.others.example import ADDRESS

PACKAGES = (
    *("scrapy-deltafetch", "scrapy-poet", "scrapy-playwright"),
    *("scrapy-user-agents", "scrapy-zyte-api", "zyte-common-items"),
)
# Some fail with newer releases in plain Scrapy, too. scrapy-crawl-once 0.1.1, scrapy-splash 0.11.1
# import what no supported release has any more.
RELEASE = "2.13"


@dataclass(frozen=True)
class Addon:
    """One of them.

    Attributes:
        lacking: what a worker without it says is missing.
        twice: it remembers; run again, it does something else.
        folder: the setting that says where it remembers.
    """

    name: str
    lacking: str
    source: str
    twice: bool = False
    folder: str = ""

    def text(self, site: str) -> str:
        return self.source.replace(ADDRESS, site)


_PAGES = """
    async def start(self):
        for n in range(40):
            yield scrapy.Request(f"%pages%/page/{n}")

    def parse(self, response):
        yield {"title": response.css("h1::text").get()}
"""
_LINKED = """
    start_urls = ["%pages%/1.html"]

    def parse(self, response):
        for n in range(40):
            yield scrapy.Request(f"%pages%/page/{n}", self.parse_page)

    def parse_page(self, response):
        yield {"title": response.css("h1::text").get()}
"""


def _spider(settings: str, body: str, head: str = "") -> str:
    return (
        f'{head}import scrapy\n\n\nclass AddonSpider(scrapy.Spider):\n    name = "addon"\n'
        f"    custom_settings = {settings}\n{body}"
    )


ADDONS = (
    Addon(
        "deltafetch",
        "scrapy_deltafetch",
        _spider(
            '{"SPIDER_MIDDLEWARES": {"scrapy_deltafetch.DeltaFetch": 100},\n'
            '        "DELTAFETCH_ENABLED": True}',
            _LINKED,
        ),
        twice=True,
        folder="DELTAFETCH_DIR",
    ),
    Addon(
        "poet",
        "web_poet",
        _spider(
            '{"ADDONS": {"scrapy_poet.Addon": 300}}',
            _PAGES.replace(
                'self, response):\n        yield {"title": response.css("h1::text").get()}',
                "self, response, page: TitlePage):\n        yield await page.to_item()",
            ).replace("def parse", "async def parse"),
            "from web_poet import WebPage, field\n\n\nclass TitlePage(WebPage):\n    @field\n"
            '    def title(self):\n        return self.css("h1::text").get()\n\n\n',
        ),
    ),
    Addon(
        "playwright without a browser",
        "scrapy_playwright",
        _spider(
            '{"DOWNLOAD_HANDLERS": {scheme: "scrapy_playwright.handler.'
            'ScrapyPlaywrightDownloadHandler" for scheme in ("http", "https")}}',
            """
    async def start(self):
        for n in range(40):
            methods = [PageMethod("wait_for_selector", "h1", timeout=n)]
            meta = {"playwright_page_methods": methods, "playwright_context": f"c{n}"}
            yield scrapy.Request(f"%pages%/page/{n}", meta=meta)

    def parse(self, response):
        (method,) = response.meta["playwright_page_methods"]
        context = response.meta["playwright_context"]
        yield {"method": method.method, "kwargs": method.kwargs, "context": context}
""",
            "from scrapy_playwright.page import PageMethod\n",
        ),
    ),
    Addon(
        "playwright's handler alone",
        "scrapy_playwright",
        _spider(
            '{"DOWNLOAD_HANDLERS": {"http": '
            '"scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"}}',
            _PAGES,
        ),
    ),
    Addon(
        "user agents",
        "scrapy_user_agents",
        _spider(
            '{"DOWNLOADER_MIDDLEWARES": {\n'
            '        "scrapy.downloadermiddlewares.useragent.UserAgentMiddleware": None,\n'
            '        "scrapy_user_agents.middlewares.RandomUserAgentMiddleware": 400}}',
            _PAGES,
        ),
    ),
    Addon(
        "zyte-api without a key",
        "scrapy_zyte_api",
        _spider(
            '{"ADDONS": {"scrapy_zyte_api.Addon": 500}, "ZYTE_API_TRANSPARENT_MODE": False,\n'
            '        "ZYTE_API_KEY": "none"}',
            _PAGES,
        ),
    ),
)
