"""Owns what becomes of exceptions in user code: failure records and the error counter.

Runs in the event loop of a child. A record is an output of the lease in which the exception
happened, so that a second run of a lost lease reports each once. What one of them keeps is bounded,
and of many at one place only the first few keep all of it: a flood of one error costs little.

An exception that user code handles (an errback, a `process_exception` that returns something) is
none of ours, as it is none of Scrapy's log; but one of a downloader middleware is told even where
an errback hears of it, because those are written for sites that fail.
"""

import contextlib
import contextvars
import dataclasses
import gc
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from scrapy import Request, Spider, signals
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.settings import BaseSettings
from twisted.python.failure import Failure

from vscrapy_magic.runtime.blame import (
    DOWNLOADER_HOOKS,
    PIPELINE_HOOKS,
    SPIDER_HOOKS,
    Called,
    arguments,
    blamed,
    code_of,
    first_argument,
    frames_of,
    function_name,
    made,
    path_name,
)
from vscrapy_magic.runtime.capture import Recorder, Seen, error_of, sight
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.runtime.frames import own_frame
from vscrapy_magic.runtime.inline import Asker
from vscrapy_magic.runtime.tracker import Output, OutputKind, Tracker, run_in, working_for
from vscrapy_magic.store.failures import BODY_BYTES_MAX, FailureKind, FailureRecord
from vscrapy_magic.store.secrets import SECRETS_SETTING, Hider

if TYPE_CHECKING:
    from vscrapy_magic.runtime.crawl import LeasedCrawler, Seat
    from vscrapy_magic.runtime.engine import LeasedEngine

logger = logging.getLogger(__name__)

BODY_SETTING: Final = "VSCRAPY_FAILURE_BODY_BYTES"  # of a response in a failure; 0 for none
FULL_CAPTURES: Final = 5  # of one group and child; later ones have no response, locals and log
RECORDS_MAX: Final = 10_000  # of one group and child; later ones are only counted
GROUPS_MAX: Final = 2_000  # groups told apart by one child; of others there are short records
FULL_BYTES_MAX: Final = 64 * 1024 * 1024  # of all full records of a child; later ones are short
# Of bodies that failed; then what exceptions keep alive in cycles is looked for, which takes 2 ms.
GARBAGE_BYTES: Final = 4 * 1024 * 1024
LOG_LINES: Final = 20  # logged before the failure
LOG_LINE_CHARS: Final = 300
_OURS: Final = __name__.partition(".")[0]
_SCRAPY: Final = "scrapy"
_ASKERS: Final = {
    FailureKind.ITEM: Asker.PIPELINE,
    FailureKind.DOWNLOADER_MIDDLEWARE: Asker.DOWNLOADER_MIDDLEWARE,
}


class Failures:
    """Listens to Scrapy's error signals of one crawl; is told of what they do not tell."""

    def __init__(self, crawler: "LeasedCrawler", codec: SpiderCodec) -> None:
        self._tracker: Final[Tracker] = crawler.tracker
        self._crawler = crawler
        self._recorder = recorder_for(crawler.seat, crawler.settings, codec)
        self._seen: Counter[str] = Counter()
        self._full_bytes = 0
        self._garbage_bytes = 0
        self._log = _LastLines()
        logging.root.addHandler(self._log)
        crawler.signals.connect(self._spider_error, signals.spider_error)
        crawler.signals.connect(self._item_error, signals.item_error)
        crawler.signals.connect(self._closed, signals.engine_stopped)

    def _closed(self) -> None:
        logging.root.removeHandler(self._log)

    # What Scrapy tells.

    def _spider_error(self, failure: Failure, response: Any) -> None:
        request = getattr(response, "request", None)
        with self._working_for(request):
            unit = self._tracker.unit()
        if unit is not None:
            unit.counts.errors += 1
        if response is None:
            return  # of start(), which `start_failed` tells of with any Scrapy
        exc = error_of(failure)
        spider, known = self._crawler.spider, request if isinstance(request, Request) else None
        callback = known.callback if known else None
        errback = known.errback if known else None
        codes = {code_of(callback or getattr(spider, "parse", None)), code_of(errback)} - {None}
        called = self._blamed(exc, self._engine.scraper.spidermw, SPIDER_HOOKS, codes)
        if called is not None:
            self._of_component(FailureKind.SPIDER_MIDDLEWARE, exc, called, known, response)
            return
        cause = _cause_of(exc, errback, callback, response)
        if cause is not None:
            name = function_name(errback)
            self._add(Seen(FailureKind.ERRBACK, exc, callback=name, request=known, cause=cause))
            return
        name = function_name(callback, "parse")
        self._add(Seen(FailureKind.CALLBACK, exc, callback=name, request=known, response=response))

    def _item_error(self, failure: Failure, response: Any, item: Any = None) -> None:
        exc, request = error_of(failure), getattr(response, "request", None)
        called = self._blamed(exc, self._engine.scraper.itemproc, PIPELINE_HOOKS)
        if called is None:
            seen = Seen(FailureKind.ITEM, exc, "", "process_item", request, response, item)
            self._add(seen)
        else:
            self._of_component(FailureKind.ITEM, exc, called, request, response, item)

    def handler_failed(self, receiver: Any, error: Any, told: dict[str, Any]) -> None:
        """A handler of a signal raised.

        Args:
            told: what the signal carried.
        """
        owner, exc = getattr(receiver, "__self__", None), error_of(error)
        name = "closed" if receiver is Spider.close else function_name(receiver)
        if type(owner).__module__.partition(".")[0] in {_OURS, _SCRAPY}:
            frame = own_frame(exc)
            if frame is None:
                return  # no code of the user's; Scrapy has logged it
            if not frames_of(exc, code_of(receiver)):
                # Scrapy 2.13 names the last handler of a signal for any that is a coroutine.
                owner, name = first_argument(frame), frame.f_code.co_name
        is_spiders = owner is None or owner is self._crawler.spider
        response = told.get("response")
        self._add(
            Seen(
                FailureKind.SIGNAL,
                exc,
                component="" if is_spiders else path_name(owner),
                callback=name,
                request=told.get("request") or getattr(response, "request", None),
                response=response,
                item=told.get("item"),
            )
        )

    # What this package's parts tell.

    def download_failed(self, failure: Failure, request: Request) -> None:
        """A request failed in a downloader middleware, or no errback was there to hear of it."""
        exc, unheard = error_of(failure), request.errback is None
        if isinstance(exc, IgnoreRequest):
            return
        called = self._blamed(exc, self._engine.downloader.middleware, DOWNLOADER_HOOKS)
        if called is not None and (unheard or not called.is_scrapys):
            self._of_component(FailureKind.DOWNLOADER_MIDDLEWARE, exc, called, request)
        elif unheard:
            self._add(Seen(FailureKind.DOWNLOAD, exc, request=request))

    def start_failed(self, exc: Exception) -> None:
        """`start()` raised."""
        spider = self._crawler.spider
        codes = {code_of(getattr(spider, name, None)) for name in ("start", "start_requests")}
        called = self._blamed(exc, self._engine.scraper.spidermw, SPIDER_HOOKS, codes - {None})
        if called is None:
            self._add(Seen(FailureKind.START, exc, callback="start"))
        else:
            self._of_component(FailureKind.SPIDER_MIDDLEWARE, exc, called, None)

    def unreadable(self, exc: Exception, packed: bytes) -> None:
        """A leased request cannot be made in this process."""
        self._add(Seen(FailureKind.REQUEST, exc, packed=packed))

    def not_scheduled(self, exc: Exception, component: Any, name: str, request: Request) -> None:
        """A class of the user's could not say whether a request has been seen."""
        self._add(Seen(FailureKind.REQUEST, exc, path_name(component), name, request))

    def sent_as_text(self, item: Any, exc: Exception) -> None:
        """Part of an item was sent as text; once for each class."""
        self._add(Seen(FailureKind.SERIALIZATION, exc, path_name(type(item)), item=item))

    def nobody_waited(
        self, exc: BaseException, name: str, context: contextvars.Context | None
    ) -> None:
        """A task, a Deferred, a thread or a dropped generator raised."""
        run = None if context is None else run_in(context)
        with working_for(run if run is not None and run.live else None):
            self._add(Seen(FailureKind.TASK, exc, callback=name))

    def not_opened(self, exc: BaseException) -> None:
        """Something ends the crawl before it has begun."""
        called = self._blamed(exc, self._engine.scraper.itemproc, PIPELINE_HOOKS)
        if called is None:
            self._add(of_load(exc))
        else:
            self._of_component(FailureKind.ITEM, exc, called, None)

    def not_closed(self, exc: BaseException) -> None:
        """`close_spider` of a pipeline raised."""
        self.not_opened(exc)

    # How.

    @property
    def _engine(self) -> "LeasedEngine":
        return cast("LeasedEngine", self._crawler.engine)

    def _blamed(
        self, exc: BaseException, manager: Any, hooks: frozenset[str], codes: Any = ()
    ) -> Called | None:
        return blamed(exc, getattr(manager, "middlewares", ()), hooks, codes)

    def _of_component(
        self,
        kind: FailureKind,
        exc: BaseException,
        called: Called,
        request: Any,
        response: Any = None,
        item: Any = None,
    ) -> None:
        """What its manager handed to it goes before what the signal carried."""
        self._add(
            Seen(
                kind,
                exc,
                component=path_name(called.component),
                callback=called.name,
                request=called.request if called.request is not None else request,
                response=called.response if called.response is not None else response,
                item=called.item if called.item is not None else item,
                cause=called.exception,
            )
        )

    def _add(self, seen: Seen) -> None:
        try:
            with self._working_for(seen.request):
                self._keep(seen)
        except Exception:
            logger.exception("A failure could not be recorded")
        self._collect(seen.response)
        if seen.kind != FailureKind.SERIALIZATION:  # its item has arrived
            self._crawler.seat.failed(seen.error)

    def _working_for(self, request: Any) -> working_for:
        """The lease of a request goes before the context: Scrapy 2.13 fires in that of another."""
        run = self._tracker.run_of(request) if isinstance(request, Request) else None
        return working_for(run or self._tracker.current())

    def _collect(self, response: Any) -> None:
        """Let responses go that failed before.

        An exception, its traceback and a frame that knows the exception are a cycle; one is in
        Scrapy's own frames. The interpreter looks for them too seldom: it counts objects, not what
        hangs on them.
        """
        if isinstance(response, Response):
            self._garbage_bytes += len(response.body)
        if self._garbage_bytes > GARBAGE_BYTES and gc.isenabled():
            self._garbage_bytes = 0
            gc.collect()

    def _keep(self, seen: Seen) -> None:
        at = sight(seen)
        group = at.group
        if group in self._seen or len(self._seen) < GROUPS_MAX:
            self._seen[group] += 1
        count = self._seen.get(group, FULL_CAPTURES + 1)
        run, only_counted = self._tracker.current(), count > RECORDS_MAX
        if only_counted:
            record = self._recorder.tally(seen, at)
        elif count <= FULL_CAPTURES and self._full_bytes < FULL_BYTES_MAX:
            if run is not None and run.inline is not None:
                asked = run.inline.of(_ASKERS.get(FailureKind(seen.kind), Asker.SPIDER))
                seen = dataclasses.replace(seen, inline=tuple(asked))
            record = self._recorder.full(seen, at, self._log.lines)
        else:
            record = self._recorder.short(seen, at)
        if run is not None:
            record = msgspec.structs.replace(record, attempt=run.lease.attempt)
        data = msgspec.msgpack.encode(record)
        if count <= FULL_CAPTURES:
            self._full_bytes += len(data)
        output = Output(OutputKind.FAILURE, data=data, identity=_identity(record, seen))
        output.tally = group if only_counted else ""
        self._tracker.add(output)


class _LastLines(logging.Handler):
    """Keeps the last lines that were logged, for those who ask what came before a failure.

    As text: a record would keep alive what it speaks of, an exception and with it responses.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: Final[deque[str]] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a bad record is reported elsewhere
            text = f"[{record.name}] {record.levelname}: {record.getMessage()}"
            self.lines.append(text[:LOG_LINE_CHARS])


def recorder_for(
    seat: "Seat",
    settings: BaseSettings,
    codec: SpiderCodec | None = None,
    *,
    body_bytes: int | None = None,
) -> Recorder:
    """The recorder of a child with these settings.

    Args:
        body_bytes: of each body so many are kept; None: as of failures.
    """
    if body_bytes is None:
        body_bytes = settings.getint(BODY_SETTING, BODY_BYTES_MAX)
    return Recorder(
        seat.worker,
        code_version=seat.code_version,
        codec=codec,
        hider=Hider(seat.secrets),
        shows_secrets=settings.getbool(SECRETS_SETTING),
        body_bytes=body_bytes,
    )


def load_failure(exc: BaseException, recorder: Recorder) -> FailureRecord:
    """The record of what ended the crawl before there was an engine to tell of it."""
    seen = of_load(exc)
    return recorder.full(seen, sight(seen))


def of_load(exc: BaseException) -> Seen:
    """What could not be made: a component, the spider, or the source itself."""
    kind, name = made(exc)
    at = sight(Seen(FailureKind.LOAD, exc))
    if kind is None and at.entries:
        name = at.entries[0][0].f_code.co_name
    is_component = isinstance(kind, type) and not kind.__module__.startswith("scrapy.core")
    return Seen(FailureKind.LOAD, exc, path_name(kind) if is_component else "", name)


def _cause_of(
    exc: BaseException, errback: Any, callback: Any, response: Any
) -> BaseException | None:
    """What the errback was called with, if that is what raised."""
    if isinstance(response, Failure):
        return error_of(response)
    code = code_of(errback)
    if code is None or code is code_of(callback):
        return None
    for frame in frames_of(exc, code):
        for given in arguments(frame):
            if isinstance(given, Failure):
                return error_of(given)
    return None


def _identity(record: FailureRecord, seen: Seen) -> bytes:
    """What another run of the lease has, too: tracebacks and messages may name addresses."""
    parts = (seen.kind, record.type, record.url, seen.component, seen.callback)
    return "\0".join(parts).encode(errors="replace")
