"""Examples that are a component of a spider, with a spider around each."""

from tests.others.example import ADDRESS, Example, Pairs
from tests.others.methods import PAGES

_IMPORTS = "import scrapy\nfrom scrapy import Request, Spider"
_MEDIA, _SETTINGS = "topics/media-pipeline", "topics/settings"
_REQUESTS, _PIPELINES = "topics/request-response", "topics/item-pipeline"


def _frame(settings: str, item: str, base: str, more: str) -> str:
    own = f"    custom_settings = {settings}\n" if settings else ""
    return f"""

class FrameSpider({base}):
    name = "frame"
{own}{PAGES}
    def parse(self, response):
        number = int(response.url.rpartition("/")[2])
        yield {item}
{more}"""


def part(
    name: str,
    document: str,
    pattern: str,
    settings: str = "",
    *,
    item: str = '{"number": number}',
    head: str = "",
    base: str = "scrapy.Spider",
    more: str = "",
    pairs: Pairs = (),
    feed: str = "",
    in_cells: bool = True,
    as_file: bool = False,
) -> Example:
    """A block, and a spider of 40 pages behind it.

    Args:
        item: what its callback yields for the page of a `number`.
        base: what the spider derives from.
        more: of its class.
    """
    return Example(
        *(name, document, pattern, "FrameSpider"),
        pairs=pairs,
        head=f"{_IMPORTS}\n{head}",
        frame=_frame(settings, item, base, more),
        feed=feed,
        in_cells=in_cells,
        as_file=as_file,
    )


def _requests(*fields: str, parse: str = '        yield {"url": response.url}\n') -> str:
    """Methods of a spider: these requests, and what they bring."""
    made = "".join(f"        yield Request({each})\n" for each in fields)
    return f"\n    async def start(self):\n{made}\n    def parse(self, response):\n{parse}"


def _fingerprints(name: str, pattern: str, *fields: str) -> Example:
    return part(
        *(name, _REQUESTS, pattern, '{"REQUEST_FINGERPRINTER_CLASS": RequestFingerprinter}'),
        more=_requests(*fields),
    )


_URL = f'"{ADDRESS}/page/%d"'
COMPONENTS = (
    part(
        "addon",
        "topics/addons",
        r"(?s)\Aclass MyAddon:\n    def update_settings\(self, settings\):\n        settings\.set",
        '{"ADDONS": {MyAddon: 1}}',
        item='{"by": self.settings.getpriority("DNSCACHE_ENABLED")}',
        as_file=True,
    ),
    part(
        "addon that brings a pipeline",
        "topics/addons",
        "setdefault_in_component_priority_dict",
        '{"ADDONS": {MyAddon: 1}}',
        item='{"price": number % 2, "tags": self.settings.getlist("METAREFRESH_IGNORE_TAGS")}',
        as_file=True,
    ),
    part(
        "addon that is not configured",
        "topics/addons",
        "MyAddon requires the boto library",
        '{"ADDONS": {MyAddon: 1}}',
        head="from scrapy.exceptions import NotConfigured",
    ),
    part(
        "addon from_crawler",
        "topics/addons",
        r"def update_settings\(self, settings\): \.\.\.",
        '{"ADDONS": {MyAddon: 1}}',
    ),
    part(
        "addon with a download handler",
        "topics/addons",
        "class MyHandler",
        '{"ADDONS": {MyAddon: 1}}',
        pairs=(('"https"', '"http"'),),
    ),
    part(
        "extension that needs asyncio",
        "topics/asyncio",
        "class MyComponent",
        '{"EXTENSIONS": {MyComponent: 1}}',
    ),
    part(
        "extension that reads a setting",
        "topics/components",
        "class MyExtension",
        '{"EXTENSIONS": {MyExtension: 1}}',
    ),
    part(
        "extension that asks for a version",
        "topics/components",
        "class MyComponent",
        '{"EXTENSIONS": {MyComponent: 1}}',
    ),
    part(
        "extension that logs",
        "topics/extensions",
        "class SpiderOpenCloseLogging",
        '{"EXTENSIONS": {SpiderOpenCloseLogging: 1}, "MYEXT_ENABLED": True, "MYEXT_ITEMCOUNT": 5}',
        as_file=True,
    ),
    part(
        "extension that has stats",
        "topics/stats",
        "class ExtensionThatAccessStats",
        '{"EXTENSIONS": {ExtensionThatAccessStats: 1}}',
    ),
    part(
        "pipeline with a Deferred",
        "topics/coroutines",
        "dfd = db",
        '{"ITEM_PIPELINES": {DbPipeline: 1}}',
        item='{"id": number}',
        head="from twisted.internet.defer import succeed\n\n\nclass db:\n    @staticmethod\n"
        "    def get_some_data(number):\n        return succeed(number * 2)\n",
    ),
    part(
        "pipeline with a coroutine",
        "topics/coroutines",
        "await db",
        '{"ITEM_PIPELINES": {DbPipeline: 1}}',
        item='{"id": number}',
        head="import asyncio\n\n\nclass db:\n    @staticmethod\n"
        "    async def get_some_data(number):\n        await asyncio.sleep(0.01)\n"
        "        return number * 2\n",
        as_file=True,
    ),
    part(
        "pipeline that drops",
        _PIPELINES,
        "class PricePipeline",
        '{"ITEM_PIPELINES": {PricePipeline: 1}}',
        item='{"price": number % 5, "price_excludes_vat": number % 2}',
        as_file=True,
    ),
    part(
        "pipeline that writes a file",
        _PIPELINES,
        "class JsonWriterPipeline",
        '{"ITEM_PIPELINES": {JsonWriterPipeline: 1}}',
        as_file=True,
    ),
    part(
        "pipeline that fetches",
        _PIPELINES,
        "class ScreenshotPipeline",
        '{"ITEM_PIPELINES": {ScreenshotPipeline: 1}}',
        item='{"url": response.url}',
        pairs=(("http://localhost:8050/", f"{ADDRESS}/"),),
        as_file=True,
    ),
    part(
        "pipeline that knows duplicates",
        _PIPELINES,
        "class DuplicatesPipeline",
        '{"ITEM_PIPELINES": {DuplicatesPipeline: 1}}',
        item='{"id": number % 10}',
        as_file=True,
    ),
    part(
        "pipeline that drops quietly",
        _SETTINGS,
        "Missing price data",
        '{"ITEM_PIPELINES": {MyPipeline: 1}}',
        item='{"price": number % 5}',
    ),
    part(
        "pipeline with many exporters",
        "topics/exporters",
        "class PerYearXmlExportPipeline",
        '{"ITEM_PIPELINES": {PerYearXmlExportPipeline: 1}}',
        item='{"year": 2000 + number % 3}',
        as_file=True,
    ),
    part(
        "middleware with a token",
        "topics/downloader-middleware",
        "class TokenMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {TokenMiddleware: 1}, "CONCURRENT_REQUESTS": 1}',
        pairs=(("https://example.com/token", f"{ADDRESS}/token"),),
    ),
    part(
        "middleware that follows some redirects",
        "topics/downloader-middleware",
        "class AllowedRedirectMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {AllowedRedirectMiddleware: 600,\n'
        '        "scrapy.downloadermiddlewares.redirect.RedirectMiddleware": None}}',
        more=_requests(f'"{ADDRESS}/to/product/1"', f'"{ADDRESS}/to/shop/1"'),
        as_file=True,
    ),
    part(
        "middleware that looks at the encoding",
        _REQUESTS,
        "class BodyEncodingMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {BodyEncodingMiddleware: 1}}',
        more=_requests(f'"{ADDRESS}/declared"', parse="        yield {'is': response.encoding}\n"),
    ),
    part(
        "responses of another class",
        "topics/security",
        "class LimitedParsingMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {LimitedParsingMiddleware: 1}}',
        item='{"is": type(response).__name__, "title": response.css("h1::text").get()}',
        as_file=True,
    ),
    part(
        "middleware of both kinds",
        "topics/spider-middleware",
        "class UniversalSpiderMiddleware",
        '{"SPIDER_MIDDLEWARES": {UniversalSpiderMiddleware: 1}}',
    ),
    _fingerprints(
        "fingerprints with a header",
        "my_project/settings.py",
        *(f'{_URL} % 1, headers={{"X-ID": "{n % 3}"}}' for n in range(6)),
    ),
    _fingerprints(
        "fingerprints of addresses",
        r"fp\.update\(to_bytes\(request\.url\)\)",
        *(f"{_URL} % {n % 4}" for n in range(8)),
    ),
    _fingerprints(
        "fingerprints that are given",
        r'request\.meta\["fingerprint"\]',
        *(f'{_URL} % {n}, meta={{"fingerprint": b"product-{n % 4}"}}' for n in range(8)),
    ),
    _fingerprints(
        "fingerprints of canonical addresses",
        r"canonicalize_url\(request\.url\)",
        *(f'{_URL} % 1 + "?{query}"' for query in ("a=1&b=2", "b=2&a=1", "a=2")),
    ),
    part(
        "filter with fingerprints of its own",
        _SETTINGS,
        "class CustomDupeFilter",
        '{"DUPEFILTER_CLASS": CustomDupeFilter}',
        more=_requests(*(f'{_URL} % 1, headers={{"X-ID": "{n % 3}"}}' for n in range(6))),
        as_file=True,
    ),
    part(
        "filter that filters nothing",
        _SETTINGS,
        "class MyDupeFilter",
        '{"DUPEFILTER_CLASS": MyDupeFilter}',
        more=_requests(*(f"{_URL} % {n % 3}" for n in range(6))),
    ),
    *(
        part(
            name,
            _MEDIA,
            pattern,
            f'{{"ITEM_PIPELINES": {{{kind}: 1}}, "FILES_STORE": "{name}"}}',
            item='{"number": number, "referrer": response.url, "file_urls": [response.urljoin(u) '
            'for u in [*response.css("a::attr(href)").getall(), f"/gone/{number}"]]}',
            as_file=True,
        )
        for name, pattern, kind in (
            ("files by type", "class ContentTypeFilesPipeline", "ContentTypeFilesPipeline"),
            ("files with a referrer", 'headers={"Referer": item', "MyFilesPipeline"),
            (
                "files by name",
                r"import FilesPipeline\n\n\nclass MyFilesPipeline(?s:.*)file_path",
                "MyFilesPipeline",
            ),
            ("files that fail", "class ResponseFileException", "MyFilesPipeline"),
        )
    ),
)
