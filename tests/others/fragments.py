"""Examples that are spiders with parts left to their reader, or that only log; and these parts."""

from tests.others.example import ADDRESS, Example, Pairs
from tests.others.methods import PAGES, SHOWN

_SETTINGS, _SPIDERS, _LOGGING = "topics/settings", "topics/spiders", "topics/logging"
_ALONE: Pairs = (
    ("https://scrapy.org", f"{ADDRESS}/page/1"),
    (r"http://(www\.)?example\.com", ADDRESS),
    (r'allowed_domains = \["example\.com"\]', 'allowed_domains = ["127.0.0.1"]'),
)


def _more(
    name: str,
    document: str,
    pattern: str,
    more: str = PAGES + SHOWN,
    *,
    base: str = "MySpider",
    pairs: Pairs = (),
    head: str = "",
    args: dict[str, str] | None = None,
) -> Example:
    """A spider that one derives from; `more` is what the derived class has."""
    return Example(
        *(name, document, pattern, "FrameSpider"),
        pairs=(*pairs, *_ALONE),
        args=args or {},
        head=f"import scrapy\n{head}",
        frame=f'\n\nclass FrameSpider({base}):\n    name = "frame"\n{more}',
    )


_CRAWL = "from scrapy.spiders import CrawlSpider"
_SOME = '    def parse(self, response):\n        yield {"is": self.settings.get("SOME_SETTING")}\n'
_STATUS = """    start_urls = ["%pages%/to/page/1", "%pages%/gone"]

    def parse_start_url(self, response):
        yield {"status": response.status}
"""

FRAGMENTS = (
    _more(
        "check of contracts",
        "topics/contracts",
        "class ExampleSpider",
        base="ExampleSpider",
    ),
    Example(
        "item through callbacks",
        "topics/debug",
        r"cb_kwargs=\{\"item\": item\}",
        "MySpider",
        (
            ("http://example.com/page", f"{ADDRESS}/page/"),
            ("# collect `item_urls`", 'item_urls = response.css("a::attr(href)").getall()'),
            (r"Request\(item_url,", "Request(response.urljoin(item_url),"),
            (
                "# and extract item_details_url",
                'item["title"] = response.text\n        item_details_url = response.url + "?more"',
            ),
        ),
    ),
    _more(
        "password of settings",
        "topics/downloader-middleware",
        "class SomeIntranetSiteSpider",
        '    start_urls = ["%pages%/headers"]\n\n    def parse_start_url(self, response):\n'
        "        yield response.json()\n",
        base="SomeIntranetSiteSpider",
        pairs=(('DOMAIN": "intranet.example.com"', 'DOMAIN": "127.0.0.1"'),),
    ),
    _more(
        "redirects by hand",
        "topics/downloader-middleware",
        r"handle_httpstatus_list = \[301",
        _STATUS,
        head=_CRAWL,
    ),
    _more(
        "missing pages by hand",
        "topics/spider-middleware",
        r"handle_httpstatus_list = \[404",
        _STATUS,
    ),
    _more("folder for a job", "topics/jobs", '"JOBDIR", str', base="BaseSpider"),
    Example("logger of the spider", _LOGGING, r"self\.logger\.info", "MySpider", _ALONE),
    Example("logger of the user", _LOGGING, r"mycustomlogger(?s:.*)class", "MySpider", _ALONE),
    _more("quieter logger", _LOGGING, "scrapy.spidermiddlewares.httperror"),
    _more(
        "custom_settings",
        _SETTINGS,
        r"custom_settings = \{\n        \"SOME_SETTING",
        PAGES + _SOME,
    ),
    _more("update_settings", _SETTINGS, r"settings\.set\(\"SOME_SETTING", PAGES + _SOME),
    _more(
        "settings of an argument",
        _SETTINGS,
        r'"SOME_SETTING", kwargs\["some_argument"\]',
        PAGES + _SOME,
        args={"some_argument": "given"},
    ),
    _more("settings that are printed", _SETTINGS, r"Existing settings: ", "    pass\n"),
    Example("arrivals", _SPIDERS, "A response from %s just arrived", "MySpider", _ALONE),
    _more(
        "argument of __init__",
        _SPIDERS,
        r"def __init__\(self, category=None",
        SHOWN,
        args={"category": "electronics"},
    ),
    _more(
        "argument as an attribute",
        _SPIDERS,
        r"categories/\{self\.category\}",
        SHOWN,
        args={"category": "electronics"},
    ),
    _more(
        "namespaces of a feed",
        _SPIDERS,
        "class YourSpider",
        '    iterator = "xml"\n    start_urls = ["%pages%/sitemap.xml"]\n\n'
        "    def parse_node(self, response, node):\n"
        '        yield {"loc": node.xpath("n:loc/text()").get()}\n',
        base="YourSpider",
    ),
)
