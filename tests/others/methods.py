"""Examples that are methods, and the spider or the component that they belong to."""

from tests.others.example import ADDRESS, Example, Pairs

_HOSTS: Pairs = (
    (r"https?://(www\.|intranet\.)?example\.(com|org)", ADDRESS),
    (r'"intranet\.example\.com"', '"127.0.0.1"'),
)
_HEAD = "import scrapy\nfrom scrapy import Request, signals"
_REQUESTS = "topics/request-response"
_MEDIA = "topics/media-pipeline"
PAGES = f'    start_urls = ["{ADDRESS}/page/%d" % n for n in range(40)]\n'
_ONE = f'    start_urls = ["{ADDRESS}/page/1"]\n'
SHOWN = '    def parse(self, response):\n        yield {"url": response.url}\n'


def _method(
    name: str, document: str, pattern: str, *, body: str = PAGES, pairs: Pairs = (), head: str = ""
) -> Example:
    """A method of a spider; `body` is what else its class has."""
    return Example(
        *(name, document, pattern, "FrameSpider"),
        pairs=(*pairs, *_HOSTS),
        head=f"{_HEAD}\n{head}",
        wrapped=f'class FrameSpider(scrapy.Spider):\n    name = "frame"\n{body}',
    )


def _part(
    name: str, document: str, pattern: str, kind: str, settings: str, *, item: str, head: str = ""
) -> Example:
    """Methods of a component that a spider uses."""
    frame = f"""

class FrameSpider(scrapy.Spider):
    name = "frame"
    custom_settings = {settings}
{PAGES}
    def parse(self, response):
        yield {item}
"""
    return Example(
        *(name, document, pattern, "FrameSpider"),
        head=f"{_HEAD}\n{head}",
        wrapped=f"class Part({kind}):",
        frame=frame,
    )


def _files(name: str, pattern: str) -> Example:
    return _part(
        *(name, _MEDIA, pattern, "FilesPipeline"),
        f'{{"ITEM_PIPELINES": {{Part: 1}}, "FILES_STORE": "{name}"}}',
        item='{"url": response.url, "file_paths": [], "file_urls": '
        '[response.urljoin(link) for link in response.css("a::attr(href)").getall()]}',
        head="from scrapy.pipelines.files import FilesPipeline",
    )


METHODS = (
    _method("callback returns", _REQUESTS, r"\Adef parse\(self, response\):\n    return \{"),
    _method("callback yields", _REQUESTS, r"\Adef parse\(self, response\):\n    yield \{"),
    _method("coroutine", _REQUESTS, r"\Aasync def parse\(self, response\):\n    return \{"),
    _method("async generator", _REQUESTS, r"\Aasync def parse\(self, response\):\n    yield \{"),
    _method("cb_kwargs", _REQUESTS, 'request.cb_kwargs\\["foo"\\] = "bar"', body=_ONE),
    _method(
        "cb_kwargs of a failure",
        _REQUESTS,
        "errback=self.errback_page2",
        pairs=(("/index.html", "/missing"),),
        body=_ONE,
    ),
    _method(
        "password of a request",
        "topics/downloader-middleware",
        '"http_user": "someuser"',
        body="    def parse(self, response):\n        yield response.json()\n",
        pairs=(("/protected/", "/headers"),),
    ),
    _method(
        "cookiejars",
        "topics/cookies",
        r"def parse_page\(self",
        body=f"""
    async def start(self):
        for i in range(20):
            url = f"{ADDRESS}/page/{{i}}"
            cookies = {{"user": f"u{{i}}"}}
            yield Request(url, meta={{"cookiejar": i}}, cookies=cookies, callback=self.parse_page)

    def parse_other_page(self, response):
        yield response.json()
""",
        pairs=(
            ("https://example.com/otherpage", f"{ADDRESS}/headers"),
            ('meta={"cookiejar"', 'dont_filter=True,\n        meta={{"cookiejar"'),
        ),
    ),
    _method(
        "link extractor",
        "topics/link-extractors",
        r"self\.link_extractor\.extract_links\(response\)",
        body=f"{PAGES}    link_extractor = LinkExtractor()\n",
        head="from scrapy.linkextractors import LinkExtractor",
    ),
    _method(
        "start() that waits for an empty queue",
        "topics/spiders",
        r"wait_for\(signals\.scheduler_empty\)",
        body=f"{PAGES}\n{SHOWN}",
    ),
    _method(
        "start() that skips an address",
        "topics/spiders",
        "Skipping start URL",
        body=f'    start_urls = ["no address", "{ADDRESS}/page/1"]\n{SHOWN}',
    ),
    _method(
        "state that is kept",
        "topics/jobs",
        r'self\.state\["items_count"\]',
        body=f'{PAGES}    custom_settings = {{"JOBDIR": "job"}}\n\n'
        "    def parse(self, response):\n        self.parse_item(response)\n"
        '        yield {"url": response.url}\n\n'
        '    def closed(self, reason):\n        self.logger.info("%s", self.state)\n',
    ),
    _method(
        "warning in a callback",
        "topics/debug",
        "No item received for",
        body=f"{PAGES}\n    def parse(self, response):\n"
        "        yield Request(response.url, self.parse_details, dont_filter=True)\n",
    ),
    Example(
        "callback that is no method",
        _REQUESTS,
        r"def parse_home\(response\)",
        "FrameSpider",
        (("https://books.toscrape.com/", f"{ADDRESS}/page/1"),),
        head=_HEAD,
        frame='\n\nclass FrameSpider(scrapy.Spider):\n    name = "frame"\n\n'
        "    async def start(self):\n        yield request\n",
    ),
    _part(
        *("process_start", "topics/spider-middleware", r"async def process_start\(", "object"),
        '{"SPIDER_MIDDLEWARES": {Part: 1}}',
        item='{"url": response.url}',
    ),
    _part(
        *("process_item", "topics/item-pipeline", r"\*= 1\.15\n    return item", "object"),
        '{"ITEM_PIPELINES": {Part: 1}}',
        item='{"url": response.url, "price": 100}',
        head="from itemadapter import ItemAdapter",
    ),
    _files("names of files", "hashlib.shake_256"),
    _files("requests for files", r"def get_media_requests\(self, item, info\):\n    adapter"),
    _files("paths of files", r'adapter\["file_paths"\] = file_paths'),
)
