"""Owns what becomes of exceptions in user code: failure records and the error counter.

Runs in the event loop of a child. Records are msgpack maps; they are outputs of the lease in which
the exception happened, so that a second run of a lost lease reports each once.
"""

import traceback
from typing import Any, Final

import msgspec
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from twisted.python.failure import Failure

from vscrapy_magic.runtime.tracker import Output, OutputKind, Tracker

TRACEBACK_CHARS: Final = 20_000  # from the end: the failing line is there
MESSAGE_CHARS: Final = 2_000


class FailureRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One exception that user code let go.

    Attributes:
        kind: where: callback, errback, item, start, download or request.
        message: text of the exception.
        callback: name of the function that was called.
        attempt: which run of the lease it was.
    """

    kind: str
    type: str
    message: str
    traceback: str
    url: str = ""
    callback: str = ""
    attempt: int = 1


class Failures:
    """Listens to Scrapy's error signals of one crawl."""

    def __init__(self, crawler: Crawler, tracker: Tracker) -> None:
        self._tracker = tracker
        crawler.signals.connect(self._spider_error, signals.spider_error)
        crawler.signals.connect(self._item_error, signals.item_error)

    def _spider_error(self, failure: Failure, response: Any) -> None:
        unit = self._tracker.unit()
        if unit is not None:
            unit.counts.errors += 1
        if response is None:
            return  # of start(), which `start_failed` tells of with any Scrapy
        in_errback = isinstance(response, Failure)
        request = getattr(response, "request", None)
        called = None
        if isinstance(request, Request):
            called = request.errback if in_errback else request.callback
        name = getattr(called, "__name__", "" if in_errback else "parse")
        self._add("errback" if in_errback else "callback", failure, request, name)

    def _item_error(self, failure: Failure, response: Any) -> None:
        self._add("item", failure, getattr(response, "request", None), "")

    def download_failed(self, failure: Failure, request: Request) -> None:
        """A request failed, and no errback was there to hear of it."""
        if request.errback is None and not isinstance(failure.value, IgnoreRequest):
            self._add("download", failure, request, "")

    def start_failed(self, exc: Exception) -> None:
        """`start()` raised."""
        self._add("start", _failure_of(exc), None, "start")

    def unreadable(self, exc: Exception) -> None:
        """A leased request cannot be made in this process."""
        self._add("request", _failure_of(exc), None, "")

    def _add(self, kind: str, failure: Failure, request: Any, callback: str) -> None:
        run = self._tracker.current()
        exc = failure.value
        type_name = f"{type(exc).__module__}.{type(exc).__qualname__}"
        url = request.url if isinstance(request, Request) else ""
        record = FailureRecord(
            kind=kind,
            type=type_name,
            message=str(exc)[:MESSAGE_CHARS],
            traceback=_text_of(failure)[-TRACEBACK_CHARS:],
            url=url,
            callback=callback,
            attempt=1 if run is None else run.lease.attempt,
        )
        # Traceback and message may name addresses in memory; they are no part of what it is.
        identity = "\0".join((kind, type_name, url, callback)).encode()
        data = msgspec.msgpack.encode(record)
        self._tracker.add(Output(OutputKind.FAILURE, data=data, identity=identity))


def _failure_of(exc: Exception) -> Failure:
    return Failure(exc)  # type: ignore[no-untyped-call]


def _text_of(failure: Failure) -> str:
    exc = failure.value
    if isinstance(exc, BaseException) and exc.__traceback__ is not None:
        return "".join(traceback.format_exception(exc))
    return str(failure.getTraceback())
