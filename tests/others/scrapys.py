"""Scrapy's own test spiders, as a release's source has them: which, and the server that each asks.

They are imported from that source, unmodified; a class derived from each gives it the server that
Scrapy's tests give it, and a name of its own.
"""

from dataclasses import dataclass, field

SPIDERS = "tests.spiders"
CHAIN = "tests.test_spidermiddleware_output_chain"
ENGINE, RUN = "tests.test_engine", "tests.utils.engine"
MEDIA = "tests.test_pipeline_crawl"
HERE = "%server%"
FRAME = """import scrapy
from {module} import {kind} as Theirs


class Server:
    host = "127.0.0.1"

    def url(self, path, is_secure=False):
        return "%server%" + path


class Framed(Theirs):
    name = "{name}"
{body}
    def __init__(self, *args, **kwargs):
        super().__init__(*args, mockserver=Server(), **kwargs)
"""


@dataclass(frozen=True)
class Case:
    """One spider and how it is run.

    Attributes:
        body: of the derived class.
        ends_only: what it does at its end depends on what was in flight: only the reason is
            compared, and that there are items if there are some in plain Scrapy.
    """

    name: str
    module: str
    kind: str
    args: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    body: str = ""
    ends_only: bool = False

    def source(self, server: str) -> str:
        text = FRAME.format(module=self.module, kind=self.kind, name=self.name, body=self.body)
        return text.replace(HERE, server)

    def words(self, server: str) -> list[str]:
        """Its arguments and settings on a command line."""
        args = [word for n, v in self.args.items() for word in ("-a", f"{n}={v}")]
        words = [*args, *(word for n, v in self.settings.items() for word in ("-s", f"{n}={v}"))]
        return [word.replace(HERE, server) for word in words]


def _url(path: str) -> dict[str, str]:
    return {"url": f"{HERE}{path}"}


DESC = {"order": "desc", "total": "30"}  # links of a page by number, not at random
_PATHS = ("/static/", "/redirect", "/redirect", "/numbers")
_SITE = f"    start_urls = {[HERE + path for path in _PATHS]}\n"
_FILES = '    media_key = "files"\n    media_urls_key = "file_urls"\n'
_FILES_SET = {"ITEM_PIPELINES": '{"scrapy.pipelines.files.FilesPipeline": 1}', "FILES_STORE": "f"}
_PARSED = "".join(
    f"    def {name}(self, *args, **kwargs):\n"
    f"        self.logger.info('{name} %s', args[0])\n"
    f"        return super().{name}(*args, **kwargs)\n\n"
    for name in ("parse", "errback")
)


def _simple(*kinds: str) -> tuple[Case, ...]:
    return tuple(Case(kind, SPIDERS, kind, _url("/status?n=200")) for kind in kinds)


CASES = (
    Case("FollowAllSpider", SPIDERS, "FollowAllSpider", DESC),
    Case("DelaySpider", SPIDERS, "DelaySpider", {"n": "0.1"}),
    Case(
        "DelaySpider timeout",
        SPIDERS,
        "DelaySpider",
        {"n": "5"},
        {"DOWNLOAD_TIMEOUT": "0.35"},
        _PARSED,
    ),
    Case("LogSpider", SPIDERS, "LogSpider", _url("/x"), body=f'    start_urls = ["{HERE}/text"]\n'),
    Case("SlowSpider", SPIDERS, "SlowSpider", {"n": "0.2"}),
    *_simple("SimpleSpider", "AsyncDefSpider", "AsyncDefAsyncioSpider"),
    *_simple("AsyncDefAsyncioReturnSpider", "AsyncDefAsyncioReturnSingleElementSpider"),
    *_simple("AsyncDefAsyncioReqsReturnSpider", "AsyncDefAsyncioGenExcSpider"),
    *_simple("AsyncDefDeferredDirectSpider", "AsyncDefDeferredWrappedSpider"),
    *_simple("AsyncDefDeferredMaybeWrappedSpider", "AsyncDefAsyncioGenSpider"),
    *_simple("AsyncDefAsyncioGenLoopSpider"),
    *(
        # The server leaves some of them open; nobody is to wait three minutes for that.
        Case(f"SimpleSpider {name}", SPIDERS, "SimpleSpider", _url(path), {"DOWNLOAD_TIMEOUT": "3"})
        for name, path in (
            ("503", "/status?n=503"),
            ("drop", "/drop?abort=0"),
            ("abort", "/drop?abort=1"),
            ("partial", "/partial"),
            ("broken", "/broken"),
            ("broken chunked", "/broken-chunked"),
            ("redirect", "/redirect"),
            ("compressed", "/compress"),
        )
    ),
    Case("AsyncDefAsyncioGenComplexSpider", SPIDERS, "AsyncDefAsyncioGenComplexSpider"),
    Case("ItemSpider", SPIDERS, "ItemSpider", DESC),
    Case("ErrorSpider", SPIDERS, "ErrorSpider", DESC),
    Case("BrokenStartSpider", SPIDERS, "BrokenStartSpider", {**DESC, "fail_before_yield": "1"}),
    Case(
        "BrokenStartSpider yielding", SPIDERS, "BrokenStartSpider", {**DESC, "fail_yielding": "1"}
    ),
    Case("StartItemSpider", SPIDERS, "StartItemSpider"),
    Case(
        "SingleRequestSpider",
        SPIDERS,
        "SingleRequestSpider",
        {"seed": f"{HERE}/text"},
        body=_PARSED.replace("errback", "on_error"),
    ),
    Case(
        "SingleRequestSpider echo",
        SPIDERS,
        "SingleRequestSpider",
        body=f'    seed = scrapy.Request("{HERE}/echo?headers=1", meta={{"next": '
        f'scrapy.Request("{HERE}/echo?headers=2", dont_filter=True)}})\n\n'
        "    def callback_func(self, response):\n"
        '        yield {"headers": sorted(response.json()["headers"])}\n'
        '        if "next" in response.meta:\n            yield response.meta["next"]\n',
    ),
    Case("DuplicateStartSpider", SPIDERS, "DuplicateStartSpider"),
    Case(
        "DuplicateStartSpider filtered",
        SPIDERS,
        "DuplicateStartSpider",
        body="    dont_filter = False\n",
    ),
    *(
        Case(kind, SPIDERS, kind)
        for kind in (
            "CrawlSpiderWithParseMethod",
            "CrawlSpiderWithAsyncCallback",
            "CrawlSpiderWithAsyncGeneratorCallback",
            "CrawlSpiderWithErrback",
            "CrawlSpiderWithoutErrback",
            "CrawlSpiderWithProcessRequestCallbackKeywordArguments",
        )
    ),
    *(
        Case(kind, SPIDERS, kind, body=_PARSED)
        for kind in (
            "BytesReceivedCallbackSpider",
            "BytesReceivedErrbackSpider",
            "HeadersReceivedCallbackSpider",
            "HeadersReceivedErrbackSpider",
        )
    ),
    Case("NoRequestsSpider", SPIDERS, "NoRequestsSpider"),
    *(
        Case(kind, CHAIN, kind)
        for kind in (
            "RecoverySpider",
            "RecoveryAsyncGenSpider",
            "ProcessSpiderInputSpiderWithoutErrback",
            "ProcessSpiderInputSpiderWithErrback",
            "GeneratorCallbackSpider",
            "AsyncGeneratorCallbackSpider",
            "GeneratorCallbackSpiderMiddlewareRightAfterSpider",
            "NotGeneratorCallbackSpider",
            "NotGeneratorCallbackSpiderMiddlewareRightAfterSpider",
            "GeneratorOutputChainSpider",
            "UnhandledExceptionSpider",
        )
    ),
    Case("KeywordArgumentsSpider", "tests.test_request_cb_kwargs", "KeywordArgumentsSpider"),
    Case("HttpErrorSpider", "tests.test_spidermiddleware_httperror", "_HttpErrorSpider"),
    Case(
        "HttpErrorSpider bypass",
        "tests.test_spidermiddleware_httperror",
        "_HttpErrorSpider",
        body="    bypass_status_codes = {402}\n",
    ),
    *(
        Case(kind, MEDIA, kind, _url("/static/files/images/"), _FILES_SET, _FILES)
        for kind in (
            "MediaDownloadSpider",
            "BrokenLinksMediaDownloadSpider",
            "RedirectedMediaDownloadSpider",
        )
    ),
    Case(
        "NoDelayDownloaderSlotsSpider",
        "tests.test_downloaderslotssettings",
        "NoDelayDownloaderSlotsSpider",
    ),
    Case("SignalCatcherSpider", "tests.test_request_left", "SignalCatcherSpider", _url("/text")),
    Case(
        "SignalCatcherSpider drop", "tests.test_request_left", "SignalCatcherSpider", _url("/drop")
    ),
    Case("ItemSpider of signals", "tests.test_signals", "ItemSpider"),
    Case("ItemSpider of pipelines", "tests.test_pipelines", "ItemSpider"),
    *(
        Case(kind, RUN, kind, body=_SITE)
        for kind in ("MySpider", "DictItemsSpider", "AttrsItemsSpider", "DataClassItemsSpider")
    ),
    *(
        Case(kind, ENGINE, kind, body=_SITE)
        for kind in ("DupeFilterSpider", "ItemZeroDivisionErrorSpider", "ChangeCloseReasonSpider")
    ),
    Case(
        "AlternativeCallbacksSpider",
        "tests.test_request_attribute_binding",
        "AlternativeCallbacksSpider",
        {"seed": f"{HERE}/text"},
    ),
    *(
        Case(
            f"closespider {name}",
            SPIDERS,
            kind,
            {**DESC, "total": "200"},
            {setting: "5"},
            ends_only=True,
        )
        for name, kind, setting in (
            ("items", "ItemSpider", "CLOSESPIDER_ITEMCOUNT"),
            ("pages", "FollowAllSpider", "CLOSESPIDER_PAGECOUNT"),
            ("pages without items", "FollowAllSpider", "CLOSESPIDER_PAGECOUNT_NO_ITEM"),
            ("errors", "ErrorSpider", "CLOSESPIDER_ERRORCOUNT"),
        )
    ),
    Case(
        "closespider timeout",
        SPIDERS,
        "SlowSpider",
        {"n": "3"},
        {"CLOSESPIDER_TIMEOUT": "1"},
        ends_only=True,
    ),
)
# Spiders of the same modules that are not compared.
LEFT_OUT = {
    "MockServerSpider": "a base",
    "RawResponseSpider": "a base",
    "MetaSpider": "a base",
    "MaxItemsAndRequestsSpider": "counts on self: how far it gets depends on timing",
    "StartGoodAndBadOutput": "an item that is `object()`, which no exporter can write",
    "ExceptionSpider": "raises when it is made: both refuse it, and neither has stats",
    "DownloaderSlotsSettingsTestSpider": "measures times; see runtime/test_settings.py",
}
MODULES = tuple(dict.fromkeys(case.module for case in CASES))
