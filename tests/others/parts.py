"""Examples that are a part of a spider: a component, an item, a feed; with a spider around it."""

from tests.others.example import ADDRESS, Example, Pairs
from tests.others.methods import PAGES

_IMPORTS = "import scrapy\nfrom scrapy import Request, Spider"
_LOADERS, _MEDIA, _SETTINGS = "topics/loaders", "topics/media-pipeline", "topics/settings"
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


def _part(
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
    return _part(
        *(name, _REQUESTS, pattern, '{"REQUEST_FINGERPRINTER_CLASS": RequestFingerprinter}'),
        more=_requests(*fields),
    )


def _feed(
    name: str, document: str, pattern: str, feed: str, settings: str, **fields: str
) -> Example:
    return _part(
        name, document, pattern, settings, feed=feed, in_cells=False, as_file=True, **fields
    )


_LOADED = '(lambda x: x.add_value("{1}", "{2}") and None or x.load_item())({0}(item={{}}))'
_URL = f'"{ADDRESS}/page/%d"'
COMPONENTS = (
    _part(
        "addon",
        "topics/addons",
        r"(?s)\Aclass MyAddon:\n    def update_settings\(self, settings\):\n        settings\.set",
        '{"ADDONS": {MyAddon: 1}}',
        item='{"by": self.settings.getpriority("DNSCACHE_ENABLED")}',
        as_file=True,
    ),
    _part(
        "addon that brings a pipeline",
        "topics/addons",
        "setdefault_in_component_priority_dict",
        '{"ADDONS": {MyAddon: 1}}',
        item='{"price": number % 2, "tags": self.settings.getlist("METAREFRESH_IGNORE_TAGS")}',
        as_file=True,
    ),
    _part(
        "addon that is not configured",
        "topics/addons",
        "MyAddon requires the boto library",
        '{"ADDONS": {MyAddon: 1}}',
        head="from scrapy.exceptions import NotConfigured",
    ),
    _part(
        "addon from_crawler",
        "topics/addons",
        r"def update_settings\(self, settings\): \.\.\.",
        '{"ADDONS": {MyAddon: 1}}',
    ),
    _part(
        "addon with a download handler",
        "topics/addons",
        "class MyHandler",
        '{"ADDONS": {MyAddon: 1}}',
        pairs=(('"https"', '"http"'),),
    ),
    _part(
        "extension that needs asyncio",
        "topics/asyncio",
        "class MyComponent",
        '{"EXTENSIONS": {MyComponent: 1}}',
    ),
    _part(
        "extension that reads a setting",
        "topics/components",
        "class MyExtension",
        '{"EXTENSIONS": {MyExtension: 1}}',
    ),
    _part(
        "extension that asks for a version",
        "topics/components",
        "class MyComponent",
        '{"EXTENSIONS": {MyComponent: 1}}',
    ),
    _part(
        "extension that logs",
        "topics/extensions",
        "class SpiderOpenCloseLogging",
        '{"EXTENSIONS": {SpiderOpenCloseLogging: 1}, "MYEXT_ENABLED": True, "MYEXT_ITEMCOUNT": 5}',
        as_file=True,
    ),
    _part(
        "extension that has stats",
        "topics/stats",
        "class ExtensionThatAccessStats",
        '{"EXTENSIONS": {ExtensionThatAccessStats: 1}}',
    ),
    _part(
        "pipeline with a Deferred",
        "topics/coroutines",
        "dfd = db",
        '{"ITEM_PIPELINES": {DbPipeline: 1}}',
        item='{"id": number}',
        head="from twisted.internet.defer import succeed\n\n\nclass db:\n    @staticmethod\n"
        "    def get_some_data(number):\n        return succeed(number * 2)\n",
    ),
    _part(
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
    _part(
        "pipeline that drops",
        _PIPELINES,
        "class PricePipeline",
        '{"ITEM_PIPELINES": {PricePipeline: 1}}',
        item='{"price": number % 5, "price_excludes_vat": number % 2}',
        as_file=True,
    ),
    _part(
        "pipeline that writes a file",
        _PIPELINES,
        "class JsonWriterPipeline",
        '{"ITEM_PIPELINES": {JsonWriterPipeline: 1}}',
        as_file=True,
    ),
    _part(
        "pipeline that fetches",
        _PIPELINES,
        "class ScreenshotPipeline",
        '{"ITEM_PIPELINES": {ScreenshotPipeline: 1}}',
        item='{"url": response.url}',
        pairs=(("http://localhost:8050/", f"{ADDRESS}/"),),
        as_file=True,
    ),
    _part(
        "pipeline that knows duplicates",
        _PIPELINES,
        "class DuplicatesPipeline",
        '{"ITEM_PIPELINES": {DuplicatesPipeline: 1}}',
        item='{"id": number % 10}',
        as_file=True,
    ),
    _part(
        "pipeline that drops quietly",
        _SETTINGS,
        "Missing price data",
        '{"ITEM_PIPELINES": {MyPipeline: 1}}',
        item='{"price": number % 5}',
    ),
    _part(
        "pipeline with many exporters",
        "topics/exporters",
        "class PerYearXmlExportPipeline",
        '{"ITEM_PIPELINES": {PerYearXmlExportPipeline: 1}}',
        item='{"year": 2000 + number % 3}',
        as_file=True,
    ),
    _part(
        "middleware with a token",
        "topics/downloader-middleware",
        "class TokenMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {TokenMiddleware: 1}, "CONCURRENT_REQUESTS": 1}',
        pairs=(("https://example.com/token", f"{ADDRESS}/token"),),
    ),
    _part(
        "middleware that follows some redirects",
        "topics/downloader-middleware",
        "class AllowedRedirectMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {AllowedRedirectMiddleware: 600,\n'
        '        "scrapy.downloadermiddlewares.redirect.RedirectMiddleware": None}}',
        more=_requests(f'"{ADDRESS}/to/product/1"', f'"{ADDRESS}/to/shop/1"'),
        as_file=True,
    ),
    _part(
        "middleware that looks at the encoding",
        _REQUESTS,
        "class BodyEncodingMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {BodyEncodingMiddleware: 1}}',
        more=_requests(f'"{ADDRESS}/declared"', parse="        yield {'is': response.encoding}\n"),
    ),
    _part(
        "responses of another class",
        "topics/security",
        "class LimitedParsingMiddleware",
        '{"DOWNLOADER_MIDDLEWARES": {LimitedParsingMiddleware: 1}}',
        item='{"is": type(response).__name__, "title": response.css("h1::text").get()}',
        as_file=True,
    ),
    _part(
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
    _part(
        "filter with fingerprints of its own",
        _SETTINGS,
        "class CustomDupeFilter",
        '{"DUPEFILTER_CLASS": CustomDupeFilter}',
        more=_requests(*(f'{_URL} % 1, headers={{"X-ID": "{n % 3}"}}' for n in range(6))),
        as_file=True,
    ),
    _part(
        "filter that filters nothing",
        _SETTINGS,
        "class MyDupeFilter",
        '{"DUPEFILTER_CLASS": MyDupeFilter}',
        more=_requests(*(f"{_URL} % {n % 3}" for n in range(6))),
    ),
    *(
        _part(
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
ITEMS_OF_KINDS = (
    *(
        _part(f"item as {name}", "topics/items", pattern, item=f"{kind}(**{fields})")
        for name, pattern, kind, fields in (
            (
                "Item",
                r"class CustomItem\(Item\)",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "dataclass",
                r"@dataclass\nclass CustomItem",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "attrs",
                r"@attr\.s\nclass CustomItem",
                "CustomItem",
                "{'one_field': 'a', 'another_field': number}",
            ),
            (
                "Item with a serializer",
                r"stock = scrapy\.Field",
                "Product",
                "{'name': 'a', 'last_updated': '1'}",
            ),
        )
    ),
    _part(
        "item that extends",
        "topics/items",
        "class DiscountedProduct",
        item='DiscountedProduct(name="a", discount_percent="5")',
        head="\n\nclass Product(scrapy.Item):\n    name = scrapy.Field()\n",
    ),
    _part(
        "item that changes a field",
        "topics/items",
        "class SpecificProduct",
        item='SpecificProduct(name="a")',
        head="\n\ndef my_serializer(value):\n    return value\n\n\n"
        "class Product(scrapy.Item):\n    name = scrapy.Field()\n",
    ),
    _part(
        "item of a pipeline", _PIPELINES, r"\A(?s:.*)class BookItem", item='BookItem("a", number)'
    ),
    _part(
        "item of feeds", "topics/spiders", r"@dataclass\nclass TestItem", item="TestItem(number)"
    ),
    _part("item of files", _MEDIA, "class MyItem", item='MyItem(["a"], [{"number": number}])'),
    _part(
        "item of a loader",
        _LOADERS,
        "class InventoryItem",
        item='InventoryItem(name="a", stock=number)',
    ),
    _part(
        "loader",
        _LOADERS,
        r"default_output_processor = TakeFirst\(\)\n\n    name_in",
        item='(lambda x: (x.add_value("name", ["a b", "c"]), x.add_value("price", " 1 ")) and '
        "x.load_item())(ProductLoader(item={}))",
        as_file=True,
    ),
    _part(
        "loader of fields",
        _LOADERS,
        "def filter_price",
        item='(lambda x: (x.add_value("name", "<b>a</b>"), x.add_value("price", ["&", "1"])) '
        "and x.load_item())(ItemLoader(item=Product()))",
        head="from scrapy.loader import ItemLoader",
    ),
    *(
        _part(
            name,
            _LOADERS,
            pattern,
            item=_LOADED.format(kind, "name", "-a-"),
        )
        for name, pattern, kind in (
            ("loader of a site", "class SiteSpecificLoader", "SiteSpecificLoader"),
            ("loader of XML", "class XmlProductLoader", "XmlProductLoader"),
        )
    ),
    _part(
        "loader with a unit",
        _LOADERS,
        "length_out = MapCompose",
        item=_LOADED.format("ProductLoader", "length", "5"),
        head="from itemloaders.processors import MapCompose\nfrom scrapy.loader import ItemLoader\n"
        '\n\ndef parse_length(text, unit="m"):\n    return text + unit\n',
    ),
)
FEEDS = (
    _feed(
        "feed with a serializer",
        "topics/exporters",
        r"class Product:\n",
        "served.jsonl",
        '{"FEEDS": {"served.jsonl": {"format": "jsonlines", "overwrite": True}}}',
        item='Product("a", number)',
    ),
    _feed(
        "feed of an exporter",
        "topics/exporters",
        "class ProductXmlExporter",
        "product.xml",
        '{"FEED_EXPORTERS": {"product": ProductXmlExporter}, '
        '"FEEDS": {"product.xml": {"format": "product", "overwrite": True}}}',
        item='{"price": number}',
    ),
    _feed(
        "feed of text",
        "topics/exporters",
        "class TextItemExporter",
        "items.text",
        '{"FEED_EXPORTERS": {"text": TextItemExporter}, '
        '"FEEDS": {"items.text": {"format": "text", "overwrite": True}}}',
        item='{"price": number}',
    ),
    _feed(
        "feed with a filter",
        "topics/feed-exports",
        "class MyCustomFilter",
        "some.jsonl",
        '{"FEEDS": {"some.jsonl": {"format": "jsonlines", "overwrite": True, '
        '"item_filter": MyCustomFilter}}}',
        item='{"number": number, "field1": "expected_data" if number % 2 else "another"}',
    ),
    _feed(
        "feed with a name of its own",
        "topics/feed-exports",
        r"def uri_params\(params, spider\)",
        "of-frame.jsonl",
        '{"FEED_URI_PARAMS": uri_params, '
        '"FEEDS": {"of-%(spider_name)s.jsonl": {"format": "jsonlines", "overwrite": True}}}',
    ),
)
PARTS = (*COMPONENTS, *ITEMS_OF_KINDS, *FEEDS)
