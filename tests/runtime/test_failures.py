"""What comes back of each exception in user code: who was called, with what, and what it met."""

import textwrap
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import HtmlResponse, Response

from tests.runtime.crawling import Crawl
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.failures import FailureKind, FailureRecord, read_failures
from vscrapy_magic.store.pipes import ExitCode
from vscrapy_magic.store.values import PlainCodec

HEAD = """
import asyncio, dataclasses, functools, gc, os, threading, time
import scrapy
from scrapy import signals
from scrapy.exceptions import DropItem, IgnoreRequest
from scrapy.http import HtmlResponse, Response, TextResponse
from twisted.internet.defer import Deferred
def page(n, **fields):
    meta = {**fields.pop("meta", {}), "download_slot": "pages"}
    return scrapy.Request(f"data:text/plain,{n}", meta=meta, **fields)
"""


def run(store: Store, body: str, **fields: Any) -> Crawl:
    environment = fields.pop("environment", {})
    with Crawl(store, HEAD + textwrap.dedent(body), "s", **fields) as crawl:
        crawl.add_child(**environment)
        crawl.wait()
        crawl.children[0].process.wait(10)
        return crawl


def records(crawl: Crawl) -> list[FailureRecord]:
    return [r for entry in crawl.raw_outputs() for r in read_failures(entry.failures)]


def told(crawl: Crawl) -> dict[tuple[str, str, str, str], FailureRecord]:
    """Failures by kind, component, callback and type; each must be there once."""
    found = records(crawl)
    by = {(r.kind, r.component, r.callback, r.type): r for r in found}
    assert len(by) == len(found), (sorted(by), crawl.logs())
    return by


def item_of(record: FailureRecord) -> Any:
    return PlainCodec().decode(record.item)["data"]


def fields_of(payload: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = PlainCodec().decode(payload)
    return fields


def test_callbacks_and_errbacks_tell_what_they_were_called_with(store: Store) -> None:
    crawl = run(
        store,
        """
        def outside(response, self):
            raise KeyError("in a partial")
        class S(scrapy.Spider):
            name = "s"
            handle_httpstatus_all = False
            custom_settings = {"SPIDER_MIDDLEWARES": {}, "DOWNLOADER_MIDDLEWARES": {}}
            async def start(self):
                yield page(1, callback=self.one, cb_kwargs={"n": 1})
                yield page(2, callback=lambda r: 1 / 0)
                yield page(3, callback=functools.partial(outside, self=self))
                yield page(4, callback=self.inner)
                yield scrapy.Request("no-such://host/5", errback=self.failed)
                yield scrapy.Request("no-such://host/6", errback=self.failed_later)
                yield scrapy.Request("no-such://host/7")
                yield page(8, callback=self.grouped)
                yield page(9, callback=self.chained)
            async def one(self, response, n):
                await asyncio.sleep(0)
                raise ValueError("one")
            def inner(self, response):
                yield {"n": 4}
                raise ValueError("later")
            def failed(self, failure):
                raise TypeError("errback")
            def failed_later(self, failure):
                yield {"n": 6}
                raise TypeError("errback as a generator")
            async def grouped(self, response):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.part(8))
            async def part(self, n):
                raise LookupError(f"part {n}")
            def chained(self, response):
                try:
                    {}["x"]
                except KeyError as exc:
                    raise RuntimeError("second") from exc
        """,
        settings={"RETRY_ENABLED": False},
    )
    found = told(crawl)
    logs = crawl.logs()
    one = found["callback", "", "one", "ValueError"]
    assert fields_of(one.request)["cb_kwargs"] == {"n": 1}
    assert one.response is not None
    assert (one.response.body, one.response.encoding) == (b"1", "cp1252"), logs
    assert one.response.kind == "scrapy.http.response.text:TextResponse"
    assert (one.code_version, one.attempt) == (1, 1)
    # A lambda cannot leave its process; its response is there all the same.
    assert found["callback", "", "<lambda>", "ZeroDivisionError"].response is not None
    assert found["callback", "", "outside", "KeyError"].url == "data:text/plain,3"
    assert found["callback", "", "inner", "ValueError"].place.endswith("in S.inner")
    for name, number in (("failed", 5), ("failed_later", 6)):
        record = found["errback", "", name, "TypeError"]
        assert record.url == f"no-such://host/{number}"
        assert record.cause is not None
        assert record.cause.type == "scrapy.exceptions.NotSupported" or record.cause.message
        assert record.response is None
    assert [r.url for key, r in found.items() if key[0] == "download"] == ["no-such://host/7"]
    grouped = found["callback", "", "grouped", "ExceptionGroup"]
    assert grouped.place.endswith("in S.part")
    assert "LookupError: part 8" in grouped.traceback
    chained = found["callback", "", "chained", "RuntimeError"]
    assert "direct cause" in chained.traceback
    assert "KeyError: 'x'" in chained.traceback
    assert len(found) == 9, sorted(found)


MIDDLEWARES = """
class Down:
    def process_request(self, request, spider=None):
        if request.url.endswith(",1"):
            raise ValueError("request")
        if request.url.endswith(",2"):
            return TextResponse("http://made/2", body=b"made", headers={"A": "b"}, status=203)
        if request.url.endswith(",3"):
            raise ConnectionError("three")
        if request.url.endswith(",9"):
            raise IgnoreRequest("not wanted")
    async def process_response(self, request, response, spider=None):
        await asyncio.sleep(0)
        if response.status == 203:
            raise ValueError("response")
        return response
    def process_exception(self, request, exception, spider=None):
        if "three" in str(exception):
            raise KeyError("exception") from exception
def hidden(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call
class Side:
    @hidden
    def process_spider_input(self, response, spider=None):
        if response.text == "4":
            raise ValueError("input")
    async def process_spider_output(self, response, result, spider=None):
        async for each in result:
            if response.text == "5":
                raise ValueError("output")
            yield each
    def process_spider_exception(self, response, exception, spider=None):
        if isinstance(exception, LookupError) and response.text == "6":
            raise ValueError("exception")
class Start:
    async def process_start(self, start):
        async for each in start:
            yield each
            if each.url.endswith(",9"):
                raise ValueError("process_start")
class Outer:
    async def process_spider_output(self, response, result, spider=None):
        async for each in result:
            yield each
class S(scrapy.Spider):
    name = "s"
    custom_settings = {
        "DOWNLOADER_MIDDLEWARES": {Down: 1},
        "SPIDER_MIDDLEWARES": {Side: 1, Start: 2, Outer: 3},
        "RETRY_ENABLED": False,
    }
    async def start(self):
        for n in range(1, 10):
            yield page(n, errback=self.failed if n == 2 else None)
    def parse(self, response):
        if response.text == "6":
            raise LookupError("of the callback")
        yield {"n": int(response.text)}
        if response.text == "7":
            raise LookupError("of the callback, through middlewares")
    def failed(self, failure):
        self.logger.info("heard")
"""


def test_middlewares_tell_their_class_method_and_what_was_handed_to_them(store: Store) -> None:
    crawl = run(store, MIDDLEWARES)
    found = told(crawl)
    down, side = "spider:Down", "spider:Side"
    kind = FailureKind.DOWNLOADER_MIDDLEWARE
    first = found[kind, down, "process_request", "ValueError"]
    assert (first.url, first.response) == ("data:text/plain,1", None)
    second = found[kind, down, "process_response", "ValueError"]  # an errback has heard of it
    assert second.response is not None
    assert (second.response.url, second.response.status) == ("http://made/2", 203)
    assert (second.response.body, second.response.headers) == (b"made", {"A": ["b"]})
    third = found[kind, down, "process_exception", "KeyError"]
    assert third.url == "data:text/plain,3"
    assert third.cause is not None
    assert (third.cause.type, third.cause.message) == ("ConnectionError", "three")
    kind = FailureKind.SPIDER_MIDDLEWARE
    fourth = found[kind, side, "process_spider_input", "ValueError"]  # behind a decorator
    assert fourth.response is not None
    assert fourth.response.body == b"4"
    fifth = found[kind, side, "process_spider_output", "ValueError"]
    assert fifth.url == "data:text/plain,5"
    assert item_of(fifth) == {"n": 5}
    sixth = found[kind, side, "process_spider_exception", "ValueError"]
    assert sixth.cause is not None
    assert sixth.cause.message == "of the callback"
    assert found["callback", "", "parse", "LookupError"].url == "data:text/plain,7"
    assert found[kind, "spider:Start", "process_start", "ValueError"].place
    assert len(found) == 8, sorted(found)


def test_pipelines_extensions_and_handlers_tell_their_class_and_what_they_got(store: Store) -> None:
    crawl = run(
        store,
        """
        @dataclasses.dataclass
        class Thing:
            n: int
            seen: tuple = ()
        class First:
            def process_item(self, item, spider=None):
                if item.n == 3:
                    raise DropItem("three")
                return dataclasses.replace(item, seen=("first",))
        class Second:
            async def process_item(self, item, spider=None):
                await asyncio.sleep(0)
                if item.n == 1:
                    raise ValueError("second")
                return item
            def close_spider(self, spider=None):
                raise OSError("closing")
        class Watch:
            @classmethod
            def from_crawler(cls, crawler):
                watch = cls()
                crawler.signals.connect(watch.scraped, signals.item_scraped)
                crawler.signals.connect(watch.received, signals.response_received)
                crawler.signals.connect(watch.opened, signals.spider_opened)
                return watch
            async def scraped(self, item):
                await asyncio.sleep(0)
                raise KeyError("scraped")
            def received(self, response, request):
                if response.text == "2":
                    raise KeyError("received")
            def opened(self, spider):
                raise KeyError("opened")
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {
                "ITEM_PIPELINES": {First: 1, Second: 2}, "EXTENSIONS": {Watch: 1},
            }
            async def start(self):
                yield page(1)
                yield page(2)
            def parse(self, response):
                yield Thing(int(response.text))
                yield Thing(3)
            def closed(self, reason):
                raise ArithmeticError("closed")
        """,
    )
    found = told(crawl)
    second = found["item", "spider:Second", "process_item", "ValueError"]
    assert item_of(second) == {"n": 1, "seen": ("first",)}
    assert second.response is not None
    assert second.response.body == b"1"
    assert second.place.endswith("in Second.process_item")
    assert found["item", "spider:Second", "close_spider", "OSError"].place
    scraped = found["signal", "spider:Watch", "scraped", "KeyError"]
    assert item_of(scraped)["n"] == 2
    received = found["signal", "spider:Watch", "received", "KeyError"]
    assert (received.url, received.response.body) == ("data:text/plain,2", b"2")  # type: ignore[union-attr]
    assert found["signal", "spider:Watch", "opened", "KeyError"].place
    assert found["signal", "", "closed", "ArithmeticError"].place.endswith("in S.closed")
    assert len(found) == 6, (sorted(found), crawl.logs())


def test_what_nobody_waited_for_comes_back(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            async def start(self):
                yield page(1)
            async def parse(self, response):
                asyncio.create_task(self.forgotten())
                Deferred().addCallback(self.unheard).callback(1)
                thread = threading.Thread(target=self.beside, name="beside")
                thread.start()
                thread.join()
                half = self.endless()
                next(half)
                del half
                await asyncio.sleep(0.2)
                gc.collect()
                yield {"n": 1}
            async def forgotten(self):
                raise ValueError("task")
            def unheard(self, _):
                raise TypeError("deferred")
            def beside(self):
                raise KeyError("thread")
            def endless(self):
                try:
                    yield 1
                finally:
                    raise OSError("dropped")
        """,
    )
    places = {(r.kind, r.type, r.place.rpartition(" in ")[2]) for r in records(crawl)}
    assert places == {
        ("task", "ValueError", "S.forgotten"),
        ("task", "TypeError", "S.unheard"),
        ("task", "KeyError", "S.beside"),
        ("task", "OSError", "S.endless"),
    }, crawl.logs()
    assert "Task exception was never retrieved" in crawl.logs()


@pytest.mark.parametrize(
    ("body", "kind", "component", "callback"),
    [
        ("raise ValueError('at import')", "load", "", "<module>"),
        (
            """
            class S(scrapy.Spider):
                name = "s"
                def __init__(self, **kwargs):
                    raise ValueError("init")
            """,
            "load",
            "",
            "__init__",
        ),
        (
            """
            class Pipe:
                @classmethod
                def from_crawler(cls, crawler):
                    raise ValueError("pipe")
            class S(scrapy.Spider):
                name = "s"
                custom_settings = {"ITEM_PIPELINES": {Pipe: 1}}
            """,
            "load",
            "spider:Pipe",
            "from_crawler",
        ),
        (
            """
            class Pipe:
                def open_spider(self, spider=None):
                    raise ValueError("open")
                def process_item(self, item, spider=None):
                    return item
            class S(scrapy.Spider):
                name = "s"
                custom_settings = {"ITEM_PIPELINES": {Pipe: 1}}
            """,
            "item",
            "spider:Pipe",
            "open_spider",
        ),
    ],
)
def test_what_ends_the_crawl_before_it_begins_comes_back(
    store: Store, body: str, kind: str, component: str, callback: str
) -> None:
    with Crawl(store, HEAD + textwrap.dedent(body), "s") as crawl:
        child = crawl.add_child()
        assert child.process.wait(30) == ExitCode.FATAL, crawl.logs()
        assert len(records(crawl)) == 1, records(crawl)
        (record,) = records(crawl)
        found = (record.kind, record.component, record.callback, record.type)
        assert found == (kind, component, callback, "ValueError")
        assert "spider.py, line" in record.place
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_responses_awaited_inline_come_back_in_order_with_their_requests(store: Store) -> None:
    crawl = run(
        store,
        """
        class Login:
            def __init__(self, crawler):
                self.crawler = crawler
            from_crawler = classmethod(lambda cls, crawler: cls(crawler))
            async def process_request(self, request, spider=None):
                if request.url.endswith(",1"):
                    await get(self.crawler, "login")
        async def get(crawler, name, **fields):
            request = page(name, **fields)
            if hasattr(crawler.engine, "download_async"):
                return await crawler.engine.download_async(request)
            from scrapy.utils.defer import maybe_deferred_to_future
            return await maybe_deferred_to_future(crawler.engine.download(request))
        class Pipe(Login):
            async def process_item(self, item, spider=None):
                await get(self.crawler, "of-pipe")
                raise KeyError("pipe")
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"DOWNLOADER_MIDDLEWARES": {Login: 1}, "ITEM_PIPELINES": {Pipe: 1}}
            async def start(self):
                yield page(1)
                yield page(2, callback=self.well)
            async def parse(self, response):
                for name in ("a", "b"):
                    await get(self.crawler, name, meta={"name": name})
                for _ in range(30):
                    await get(self.crawler, "c", dont_filter=True)
                yield {"n": 1}
                raise ValueError("after three")
            async def well(self, response):
                await get(self.crawler, "d")
        """,
    )
    found = told(crawl)
    record = found["callback", "", "parse", "ValueError"]
    bodies = [response.body for response in record.inline]
    assert bodies[:3] == [b"a", b"b", b"c"], crawl.logs()
    assert len(bodies) <= 20
    assert b"login" not in bodies
    assert fields_of(record.inline[1].request)["meta"]["name"] == "b"
    assert fields_of(record.inline[1].request)["url"] == "data:text/plain,b"


def test_a_response_is_kept_as_it_was(store: Store) -> None:
    crawl = run(
        store,
        """
        class Make:
            def process_request(self, request, spider=None):
                made = HtmlResponse(
                    "http://site/x", body="<p>\\u00e4</p>".encode("latin-1") + b"." * 5000,
                    encoding="latin-1", headers={"Set-Cookie": "sid=geheimnis; Path=/"},
                    flags=["f"], protocol="h2", request=request.replace(url="http://site/other"),
                )
                return made
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"DOWNLOADER_MIDDLEWARES": {Make: 1}}
            async def start(self):
                yield page(1)
            def parse(self, response):
                raise ValueError("x")
        """,
        settings={"VSCRAPY_FAILURE_BODY_BYTES": 100},
    )
    (record,) = records(crawl)
    kept = record.response
    assert kept is not None
    assert kept.kind == "scrapy.http.response.html:HtmlResponse"
    assert (kept.encoding, kept.flags, kept.protocol) == ("latin-1", ("f",), "h2")
    assert kept.body == "<p>\u00e4</p>".encode("latin-1") + b"." * 92
    assert (kept.body_bytes, kept.is_whole) == (5008, False)


SECRETS = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield page(1, headers={
            "Authorization": "Bearer token-of-mine", "Cookie": "sid=cookie-of-mine; n=1",
            "X": "y",
        }, meta={"proxy_": 1, "note": "env-value-1"}, cookies={"sid": "other-of-mine"})
    def parse(self, response):
        token = "token-of-mine"
        headers = {"Authorization": "Basic another-of-mine", b"Cookie": [b"c=third-of-mine"]}
        url = "http://me:password-of-mine@host/x"
        env = os.environ.get("TOKEN", "")
        self.logger.info("with %s and %s", token, url)
        request = response.request
        raise ValueError(f"bad {token} at {url} with cookie-of-mine and {env}")
"""


@pytest.mark.parametrize("shown", [False, True])
def test_secrets_are_masked_unless_they_are_asked_for(store: Store, shown: bool) -> None:
    crawl = run(store, SECRETS, settings={"VSCRAPY_FAILURE_SECRETS": shown, "COOKIES_ENABLED": 0})
    (record,) = records(crawl)
    text = repr(record)
    assert ("of-mine" in text) is shown, text
    fields = fields_of(record.request)
    sent = fields["headers"]
    assert sent[b"Authorization"] == [b"Bearer token-of-mine" if shown else b"***"]
    assert fields["cookies"] == {"sid": "other-of-mine" if shown else "***"}
    assert sent[b"X"] == [b"y"]
    assert record.headers["X"] == ["y"]
    assert record.frames[-1].locals["url"] == (
        "'http://me:password-of-mine@host/x'" if shown else "'http://***@host/x'"
    )


def test_values_of_the_environment_that_was_sent_are_masked(store: Store) -> None:
    crawl = run(store, SECRETS, variables={"TOKEN": "env-value-1"})
    (record,) = records(crawl)
    assert "env-value-1" not in repr(record), repr(record)
    assert fields_of(record.request)["meta"]["note"] == "***********"


ODD = """
class Rude(Exception):
    def __str__(self):
        raise ValueError("no text")
class Shy:
    def __repr__(self):
        raise OSError("no repr")
class Loop(dict):
    pass
@dataclasses.dataclass
class Holder:
    what: object
class S(scrapy.Spider):
    name = "s"
    custom_settings = {"CONCURRENT_REQUESTS": 1}
    async def start(self):
        yield page(1, callback=self.rude)
        yield page(2, callback=self.deep)
        yield page(3, callback=self.huge)
        yield page(4, callback=self.text)
        yield page(5, callback=self.endless)
    def rude(self, response):
        raise Rude
    def deep(self, response):
        return self.deep(response)
    def huge(self, response):
        shy, many, long, raw = Shy(), list(range(10**6)), "x" * 10**7, b"y" * 10**7
        inside = [Shy()]
        raise ValueError("z" * 10**6)
    def text(self, response):
        yield {"n": 1, "file": open(os.devnull)}
        yield {"n": 2, "file": open(os.devnull)}
    def endless(self, response):
        loop = {}
        loop["loop"] = loop
        yield {"n": 3, "loop": loop}
"""


def test_odd_exceptions_and_items_do_not_stop_the_record(store: Store) -> None:
    crawl = run(store, ODD)
    found = {(r.kind, r.callback, r.type.rpartition(".")[2]): r for r in records(crawl)}
    logs = crawl.logs()
    assert found["callback", "rude", "Rude"].message == "<its text raised ValueError>", logs
    deep = found["callback", "deep", "RecursionError"]
    assert len(deep.frames) == 20
    assert len(deep.traceback) <= 20_000
    huge = found["callback", "huge", "ValueError"]
    shown = huge.frames[-1].locals
    assert shown["shy"] == "<its repr raised OSError>"
    assert shown["inside"] == "[<its repr raised OSError>]"
    assert all(len(text) < 500 for text in shown.values())
    assert len(huge.message) == 2000
    texts = [r for r in records(crawl) if r.kind == "serialization"]
    assert len(texts) == 2, logs  # one for the files, one for the item that nothing can hold
    assert item_of(texts[0])["n"] == 1
    assert "is sent as text" in logs


def test_a_request_of_the_record_can_be_made_again() -> None:
    class Own(Spider):
        name = "own"

    codec = SpiderCodec(Own())
    request = Request("http://user:pw@site/", headers={"Authorization": "x", "A": "b"})
    from vscrapy_magic.runtime.capture import Recorder

    recorder = Recorder("w", codec=codec)
    response = HtmlResponse("http://site/", body=b"<p>", request=request)
    kept = recorder.response(response, None)
    again = codec.decode_request(kept.request)
    assert again.url == "http://***@site/"
    assert again.headers["Authorization"] == b"***"
    assert again.headers["A"] == b"b"
    assert recorder.response(Response("http://site/"), None).encoding == ""
