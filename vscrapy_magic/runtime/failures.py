"""Owns what becomes of exceptions in user code: failure records and the error counter.

Runs in the event loop of a child. A record is an output of the lease in which the exception
happened, so that a second run of a lost lease reports each once. What one of them keeps is bounded,
and of many at one place only the first few keep all of it: a flood of one error costs little.
"""

import contextlib
import logging
import time
import traceback
import zlib
from collections import Counter, deque
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
from scrapy import Request, signals
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Headers, Response
from twisted.python.failure import Failure

from vscrapy_magic.runtime.frames import place_of, type_name, user_frames
from vscrapy_magic.runtime.tracker import Output, OutputKind, Tracker
from vscrapy_magic.store.failures import (
    BODY_BYTES_MAX,
    CapturedResponse,
    FailureKind,
    FailureRecord,
    mask_headers,
)
from vscrapy_magic.store.values import CannotCrossError

if TYPE_CHECKING:
    from vscrapy_magic.runtime.crawl import LeasedCrawler

TRACEBACK_CHARS: Final = 20_000  # from the end: the failing line is there
MESSAGE_CHARS: Final = 2_000
FULL_CAPTURES: Final = 5  # of one group and child; later ones have no response, locals and log
LOG_LINES: Final = 20  # logged before the failure
LOG_LINE_CHARS: Final = 300
_BODY_LEVEL: Final = 1  # of zlib
_GROUP_BYTES: Final = 6


class Failures:
    """Listens to Scrapy's error signals of one crawl."""

    def __init__(self, crawler: "LeasedCrawler", tracker: Tracker, worker: str) -> None:
        self._tracker = tracker
        self._crawler = crawler
        self._worker = worker
        self._seen: Counter[str] = Counter()
        self._log = _LastLines()
        logging.root.addHandler(self._log)
        crawler.signals.connect(self._spider_error, signals.spider_error)
        crawler.signals.connect(self._item_error, signals.item_error)
        crawler.signals.connect(self._closed, signals.engine_stopped)

    def _closed(self) -> None:
        logging.root.removeHandler(self._log)

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
        kind = FailureKind.ERRBACK if in_errback else FailureKind.CALLBACK
        self._add(kind, failure.value, request, response, name)

    def _item_error(self, failure: Failure, response: Any) -> None:
        self._add(FailureKind.ITEM, failure.value, getattr(response, "request", None), response)

    def download_failed(self, failure: Failure, request: Request) -> None:
        """A request failed, and no errback was there to hear of it."""
        if request.errback is None and not isinstance(failure.value, IgnoreRequest):
            self._add(FailureKind.DOWNLOAD, failure.value, request)

    def start_failed(self, exc: Exception) -> None:
        """`start()` raised."""
        self._add(FailureKind.START, exc, callback="start")

    def unreadable(self, exc: Exception) -> None:
        """A leased request cannot be made in this process."""
        self._add(FailureKind.REQUEST, exc)

    def _add(
        self,
        kind: str,
        exc: Any,
        request: Any = None,
        response: Any = None,
        callback: str = "",
    ) -> None:
        run = self._tracker.current()
        record = self._record(kind, exc, request, response, callback)
        if run is not None:
            record = msgspec.structs.replace(record, attempt=run.lease.attempt)
        # Traceback and message may name addresses in memory; they are no part of what it is.
        identity = "\0".join((kind, record.type, record.url, callback)).encode()
        data = msgspec.msgpack.encode(record)
        self._tracker.add(Output(OutputKind.FAILURE, data=data, identity=identity))
        self._crawler.seat.failed(exc)

    def _record(
        self, kind: str, exc: Any, request: Any, response: Any, callback: str
    ) -> FailureRecord:
        type_ = type_name(exc)
        frames = user_frames(exc.__traceback__) if isinstance(exc, BaseException) else []
        place = place_of(frames)
        group = _group(kind, type_, place or callback)
        self._seen[group] += 1
        is_full = self._seen[group] <= FULL_CAPTURES
        if not is_full:
            frames = [msgspec.structs.replace(frame, locals={}) for frame in frames]
        known = request if isinstance(request, Request) else None
        return FailureRecord(
            kind=kind,
            type=type_,
            message=str(exc)[:MESSAGE_CHARS],
            traceback=_text_of(exc)[-TRACEBACK_CHARS:],
            place=place,
            group=group,
            url=known.url if known else "",
            method=known.method if known else "",
            callback=callback,
            headers=mask_headers(_headers(known.headers)) if known else {},
            request=self._payload(known),
            response=_captured(response) if is_full and isinstance(response, Response) else None,
            frames=tuple(frames),
            log=tuple(self._log.lines) if is_full else (),
            worker=self._worker,
            time_ms=int(time.time() * 1000),
        )

    def _payload(self, request: Request | None) -> bytes:
        if request is None:
            return b""
        try:
            return self._crawler.host.codec.encode_request(request)
        except CannotCrossError:
            return b""


class _LastLines(logging.Handler):
    """Keeps the last lines that were logged, for those who ask what came before a failure."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._records: deque[logging.LogRecord] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    @property
    def lines(self) -> list[str]:
        lines = []
        for record in self._records:
            with contextlib.suppress(Exception):  # a bad record is reported elsewhere
                text = f"[{record.name}] {record.levelname}: {record.getMessage()}"
                lines.append(text[:LOG_LINE_CHARS])
        return lines


def _group(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=_GROUP_BYTES).hexdigest()


def _text_of(exc: Any) -> str:
    if isinstance(exc, BaseException):
        return "".join(traceback.format_exception(exc))
    return repr(exc)


def _headers(headers: Headers) -> dict[str, list[str]]:
    return {
        name.decode("latin-1"): [value.decode("latin-1") for value in values]
        for name, values in dict.items(headers)
    }


def _captured(response: Response) -> CapturedResponse:
    kind = type(response)
    body = response.body
    return CapturedResponse(
        url=response.url,
        status=response.status,
        kind=f"{kind.__module__}:{kind.__qualname__}",
        headers=mask_headers(_headers(response.headers)),
        packed=zlib.compress(body[:BODY_BYTES_MAX], _BODY_LEVEL),
        body_bytes=len(body),
    )
