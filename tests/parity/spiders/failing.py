"""What goes wrong, and what Scrapy's middlewares do about it."""

import scrapy
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import IgnoreRequest


class RetrySpider(scrapy.Spider):
    """Retries of statuses, resets and timeouts, until they work or are given up."""

    name = "retry"
    custom_settings = {"DOWNLOAD_TIMEOUT": 2, "RETRY_TIMES": 2}

    async def start(self):
        for n in range(6):
            yield scrapy.Request(f"{self.site}/status/500?fails=1&n={n}", errback=self.failed)
        for n in range(3):
            url = f"{self.site}/reset/{n}?fails=2"
            yield scrapy.Request(url, method="POST", errback=self.failed)  # GET: Twisted tries, too
        yield scrapy.Request(f"{self.site}/slow/1?fails=1&s=4", errback=self.failed)
        yield scrapy.Request(f"{self.site}/status/503", errback=self.failed)
        yield scrapy.Request(f"{self.site}/reset/9", method="POST", errback=self.failed)
        yield scrapy.Request(f"{self.site}/status/429?fails=1", meta={"max_retry_times": 1})
        yield scrapy.Request(f"{self.site}/status/502?never", meta={"dont_retry": True})

    def parse(self, response):
        yield {"url": response.url, "times": response.meta.get("retry_times", 0)}

    def failed(self, failure):
        kind = "status" if hasattr(failure.value, "response") else "connection"
        yield {
            "failed": failure.request.url,
            "kind": kind,
            "times": failure.request.meta.get("retry_times"),
        }


class RetryInCallbackSpider(scrapy.Spider):
    """get_retry_request in a callback, with a reason of its own."""

    name = "retry_in_callback"

    async def start(self):
        for n in range(8):
            yield scrapy.Request(f"{self.site}/status/200?fails=1&n={n}")

    def parse(self, response):
        if "Fails" in response.text:
            yield get_retry_request(response.request, spider=self, reason="empty")
            return
        yield {"url": response.url, "times": response.meta["retry_times"]}


class RedirectSpider(scrapy.Spider):
    """Redirects: chains, permanent ones, POST, loops, dont_redirect, handled statuses, refresh."""

    name = "redirects"
    custom_settings = {"REDIRECT_MAX_TIMES": 5}
    handle_httpstatus_list = [303]

    async def start(self):
        yield scrapy.Request(f"{self.site}/redirect/3")
        yield scrapy.Request(f"{self.site}/redirect/p?to=/page/30&code=301")
        yield scrapy.Request(
            f"{self.site}/redirect/x?to=/echo&code=307", method="POST", body="kept"
        )
        yield scrapy.Request(
            f"{self.site}/redirect/y?to=/echo&code=302", method="POST", body="lost"
        )
        yield scrapy.Request(f"{self.site}/redirect/z?to=/page/1&code=303")
        yield scrapy.Request(f"{self.site}/loop/1", errback=self.failed)
        yield scrapy.Request(
            f"{self.site}/redirect/4", meta={"dont_redirect": True, "handle_httpstatus_list": [302]}
        )
        for n in range(6):
            yield scrapy.Request(f"{self.site}/refresh/{n + 10}")
            yield scrapy.Request(f"{self.site}/redirect/q{n}?to=/page/{n + 20}")

    def parse(self, response):
        yield {
            "url": response.url,
            "status": response.status,
            "urls": response.meta.get("redirect_urls"),
            "reasons": [str(each) for each in response.meta.get("redirect_reasons", [])],
        }

    def failed(self, failure):
        yield {"failed": failure.request.url}


class StatusSpider(scrapy.Spider):
    """Statuses that are ignored, allowed by a setting, by the spider and by meta."""

    name = "statuses"
    custom_settings = {"HTTPERROR_ALLOWED_CODES": [404], "RETRY_ENABLED": False}
    handle_httpstatus_list = [410]

    async def start(self):
        for code in (400, 401, 403, 404, 410, 418, 500, 503):
            yield scrapy.Request(f"{self.site}/status/{code}")
            yield scrapy.Request(
                f"{self.site}/status/{code}?all", meta={"handle_httpstatus_all": True}
            )

    def parse(self, response):
        yield {"status": response.status, "url": response.url}


class RobotsSpider(scrapy.Spider):
    """ROBOTSTXT_OBEY: forbidden pages are not asked for, robots.txt once per crawl."""

    name = "robots"
    custom_settings = {"ROBOTSTXT_OBEY": True}

    async def start(self):
        yield scrapy.Request(f"{self.site}/page/first", self.more)

    def more(self, response):
        # Not before: of many that wait for robots.txt Scrapy 2.19 asks it for the first one only.
        for n in range(24):
            kind = "private" if n % 4 == 0 else "page"
            yield response.follow(f"/{kind}/{n}", errback=self.failed)
        yield response.follow("/private/99", meta={"dont_obey_robotstxt": True})

    def parse(self, response):
        yield {"url": response.url}

    def failed(self, failure):
        if failure.check(IgnoreRequest):
            yield {"forbidden": failure.request.url}


class DepthSpider(scrapy.Spider):
    """DEPTH_LIMIT, DEPTH_PRIORITY and DEPTH_STATS_VERBOSE."""

    name = "depth"
    custom_settings = {"DEPTH_LIMIT": 5, "DEPTH_PRIORITY": 1, "DEPTH_STATS_VERBOSE": True}

    async def start(self):
        yield scrapy.Request(f"{self.site}/deep/1")

    def parse(self, response):
        yield {"url": response.url, "depth": response.meta["depth"]}
        yield from response.follow_all(css="a")


class OffsiteSpider(scrapy.Spider):
    """allowed_domains: other hosts are filtered, unless allow_offsite says otherwise."""

    name = "offsite"
    allowed_domains = ["127.0.0.1"]

    async def start(self):
        yield scrapy.Request(f"{self.site}/mixed")

    def parse(self, response):
        yield {"url": response.url}
        if "mixed" in response.url:
            yield from response.follow_all(xpath="//a[not(starts-with(@href, 'mailto'))]")
            other = response.urljoin("/page/8").replace("127.0.0.1", "localhost")
            yield scrapy.Request(other, meta={"allow_offsite": True})
            yield scrapy.Request(other.replace("page/8", "page/9"), dont_filter=True)


class UrlLengthSpider(scrapy.Spider):
    """URLLENGTH_LIMIT, and referers by policy."""

    name = "url_length"
    custom_settings = {"URLLENGTH_LIMIT": 60, "REFERRER_POLICY": "unsafe-url"}

    async def start(self):
        yield scrapy.Request(f"{self.site}/list")

    def parse(self, response):
        for n in range(12):
            yield response.follow(f"/echo?{'x' * n * 6}", self.parse_echo)

    def parse_echo(self, response):
        data = response.json()
        yield {"n": len(response.url.partition("?")[2]), "referer": data["headers"].get("referer")}


class SizesSpider(scrapy.Spider):
    """DOWNLOAD_MAXSIZE and DOWNLOAD_WARNSIZE, as settings and in meta."""

    name = "sizes"
    custom_settings = {"DOWNLOAD_MAXSIZE": 200_000, "RETRY_ENABLED": False}

    async def start(self):
        for mb in (0.1, 0.3):
            yield scrapy.Request(f"{self.site}/big?mb={mb}", errback=self.failed)
        yield scrapy.Request(
            f"{self.site}/big?mb=0.4", meta={"download_maxsize": 500_000}, errback=self.failed
        )

    def parse(self, response):
        yield {"url": response.url, "bytes": len(response.body)}

    def failed(self, failure):
        yield {"too big": failure.request.url}


class RaisingSpider(scrapy.Spider):
    """Errors in callbacks, in the middle of a generator, in errbacks and async callbacks."""

    name = "raising"

    async def start(self):
        for n in range(6):
            yield scrapy.Request(f"{self.site}/page/{n}", self.parse_late)
        yield scrapy.Request(f"{self.site}/page/10", self.parse_at_once)
        yield scrapy.Request(f"{self.site}/page/11", self.parse_async)
        yield scrapy.Request(f"{self.site}/status/404", errback=self.fail_again)

    def parse_late(self, response):
        yield {"before": response.url}
        if response.url.endswith("3"):
            raise KeyError("three")
        yield {"after": response.url}

    def parse_at_once(self, response):
        return 1 / 0

    async def parse_async(self, response):
        yield {"async": response.url}
        raise ValueError("async")

    def fail_again(self, failure):
        raise RuntimeError("in errback")


class StartRaisesSpider(scrapy.Spider):
    """start() that raises after some requests: these are still crawled."""

    name = "start_raises"

    async def start(self):
        for n in range(8):
            yield scrapy.Request(f"{self.site}/page/{n}")
        raise RuntimeError("no more")

    def parse(self, response):
        yield {"url": response.url}


class CallbackMissingSpider(scrapy.Spider):
    """A spider without parse(): NotImplementedError for each page."""

    name = "no_parse"

    async def start(self):
        for n in range(5):
            yield scrapy.Request(f"{self.site}/page/{n}")
