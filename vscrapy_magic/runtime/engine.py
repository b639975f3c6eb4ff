"""Owns every private touch of Scrapy: the engine of a child, which works for leases.

Runs in the event loop of a child. An installed Scrapy from 2.13 to 2.19 has what is named here; a
test per touch fails where a version has not. What is not public, and in which versions it was read:

- `ExecutionEngine._download`, `_handle_downloader_output` (2.13-2.19): overridden; a lease begins
  to be worked on in the first, and ends when the Deferred of the second fires.
- `ExecutionEngine._start_request_processing`, `_process_start_next`, `_start`, `_slot` (its
  `nextcall`), `_start_scheduled_requests`, `_spider_idle` (2.13-2.19): `start()` and `spider_idle`
  run only under a lease; the engine is poked when leases come.
- `ExecutionEngine.close_spider` and `stop` (2.13), `close_spider_async` and `stop_async`
  (2.14-2.19): public, but overridden: asking for the end is an output like others.
- `Crawler._create_engine` (2.13-2.19): installs this engine.
- `Downloader.slots` and its slots' `concurrency`, `active`, `queue`, `transferring`, `delay`,
  `lastseen`, and `Downloader.per_slot_settings` (2.13-2.19): shares of a slot.
- `Downloader._get_slot` (2.13-2.19; with the spider up to 2.13), the clock of `lastseen` (wall time
  up to 2.15, monotonic later), `_get_concurrency_delay` (up to 2.17; says whether the downloader
  looks at spider attributes), `Downloader._delay` (from 2.18).
- `SpiderMiddlewareManager.methods["process_spider_input"]` (2.13-2.19): a recorded crawl adds one.
- `DownloaderMiddlewareManager.methods`, `Scraper.handle_spider_output_async` and
  `_process_spidermw_output` (2.13 only, in `contexts.py`): these run in whatever context a Deferred
  fires there; later versions run them in the context of their request.
- `Scraper._process_spidermw_output_async` (2.19; where it is missing outputs of one callback may
  pile up): a callback whose outputs wait to be committed waits, too.
- `_Slot.inprogress` of the engine, `Slot.active`, `queue` and `itemproc_size` of the scraper
  (2.13-2.19): what is given up when newer code comes is waited for no more.
- `RobotsTxtMiddleware._parsers`, `_parserimpl` and `CookiesMiddleware.jars` (2.13-2.19).
- `Scraper.close_spider_async` (2.14-2.19) and `close_spider` (2.13): public, but overridden:
  Scrapy logs what they raise, and nobody hears of it.
- `MiddlewareManager.middlewares` (2.13-2.19), and variables in frames of a traceback, which
  `blame.py` only reads: `method`, `request`, `response`, `exception` of the managers in
  `scrapy.core`, `obj` of `MiddlewareManager._process_chain` (2.14-2.19), and the class that
  `build_from_crawler` got. Where they are missing, the component's own variables are taken.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Container
from typing import TYPE_CHECKING, Any, Final

import scrapy.core.downloader as downloader_module
from scrapy import Request
from scrapy.core.downloader import Slot
from scrapy.core.downloader.middleware import DownloaderMiddlewareManager
from scrapy.core.engine import ExecutionEngine
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from scrapy.utils.misc import build_from_crawler
from twisted.internet.defer import Deferred, execute, succeed
from twisted.python.failure import Failure

from vscrapy_magic.runtime.capture import error_of
from vscrapy_magic.runtime.contexts import keep_context
from vscrapy_magic.runtime.fetching import fetch_requests, is_fetching
from vscrapy_magic.runtime.inline import Asker, Inline, asker
from vscrapy_magic.runtime.room import Room
from vscrapy_magic.runtime.start import LeasedStart
from vscrapy_magic.runtime.tracker import Run, RunState, Tracker, working_for

if TYPE_CHECKING:
    from vscrapy_magic.runtime.crawl import LeasedCrawler

slot_clock: Final[Callable[[], float]] = (
    downloader_module.monotonic
    if hasattr(downloader_module, "monotonic")
    else downloader_module.time  # type: ignore[attr-defined]
)
asks_spider: Final = hasattr(downloader_module, "_get_concurrency_delay")
_HAS_ASYNC_CLOSE: Final = hasattr(ExecutionEngine, "close_spider_async")
_KEEPS_CONTEXT: Final = hasattr(DownloaderMiddlewareManager, "download_async")


async def _nothing() -> None:
    """What there is to wait for when the end was only asked for."""


class LeasedEngine(ExecutionEngine):
    """Scrapy's engine, for requests that are leases of a crawl that others work on, too."""

    crawler: "LeasedCrawler"

    def __init__(
        self, crawler: "LeasedCrawler", spider_closed_callback: Callable[..., Any]
    ) -> None:
        super().__init__(crawler, spider_closed_callback)
        self.tracker: Tracker = crawler.tracker
        self.close_asked = False
        self._closing = False
        self.leased_start: Final = LeasedStart(self)
        self.room: Final = Room(self._step_soon)
        self._idle_run: Run | None = None
        self._fetching = is_fetching(crawler.settings)
        self._get_slot_needs_spider = (
            inspect.signature(self.downloader._get_slot).parameters.get("spider") is not None
            and not _KEEPS_CONTEXT
        )
        if not _KEEPS_CONTEXT:
            keep_context(self.downloader.middleware, self.scraper, self.tracker)
        self._hold_outputs_back()
        self._hear_of_closing()

    # What a lease covers.

    def _download(self, request: Request) -> "Deferred[Response | Request]":
        run = self.tracker.run_of(request)
        if run is None:
            # Awaited inside a callback: it belongs to the lease of that callback.
            run = self.tracker.current()
            if run is not None:
                return self._download_inline(request, run)
        with working_for(run):
            return super()._download(request)

    def _download_inline(self, request: Request, run: Run) -> "Deferred[Response | Request]":
        """Keep the response, too, for whoever runs the code again that awaits it."""
        self.tracker.attach(run, request)
        who = asker() or (Asker.SPIDER if run.scraping else Asker.DOWNLOADER_MIDDLEWARE)
        with working_for(run):
            done = super()._download(request)

        def keep(result: Any) -> Any:
            if run.state is RunState.RUNNING:
                run.inline = run.inline or Inline()
                run.inline.keep(result, who)
            return result

        return done.addCallback(keep)

    def _handle_downloader_output(
        self, result: Request | Response | Failure, request: Request
    ) -> "Deferred[None]":
        run = self.tracker.run_of(request)
        if run is None:
            return super()._handle_downloader_output(result, request)
        host = self.crawler.host
        run.scraping = True
        host.downloaded(run, request, result)
        with working_for(run):
            if self._fetching and isinstance(result, Response):
                done = execute(host.fetched, result)
            else:
                done = super()._handle_downloader_output(result, request)

        def ended(outcome: Any) -> Any:
            host.processed(run, request, result)
            self.tracker.request_done(run)
            host.stepper.poke()
            return outcome

        done.addBoth(ended)
        return done

    def _start_scheduled_requests(self) -> None:
        with working_for(None):
            super()._start_scheduled_requests()

    def before_callbacks(self, function: Callable[..., None]) -> None:
        """Call a function with each response that is about to reach a callback.

        It is the last `process_spider_input`: those of the middlewares have let the response pass.
        """
        self.scraper.spidermw.methods["process_spider_input"].append(function)

    def poke(self) -> None:
        """Let the engine ask the scheduler soon; left alone it asks every five seconds."""
        if self._slot is not None and self._slot.closing is None:
            self._slot.nextcall.schedule()

    def local_slot(self, request: Request) -> Slot:
        """The downloader's slot of a request, made if it is new."""
        if self._get_slot_needs_spider:
            return self.downloader._get_slot(request, self.spider)[1]
        return self.downloader._get_slot(request)[1]

    def _step_soon(self) -> None:
        self.crawler.host.stepper.poke()

    def _hold_outputs_back(self) -> None:
        """Take no more of a callback than steps carry away; Scrapy waits for each output."""
        scraper: Any = self.scraper
        process = getattr(scraper, "_process_spidermw_output_async", None)
        if process is None:
            return

        async def process_output(output: Any, response: Any) -> None:
            await process(output, response)
            await self.room.wait_for(self.tracker.current())

        scraper._process_spidermw_output_async = process_output

    # start()

    def _start_request_processing(self) -> Any:
        # Nothing is iterated until this child gets the start lease.
        source, self._start = self._start, None
        self.leased_start.source = None if self._fetching else source
        self.crawler.host.opened()
        return super()._start_request_processing()

    async def outputs_of_start(self) -> AsyncIterator[Any]:
        """What `start()` brings, anew: what Scrapy has begun may be used once."""
        if self._fetching:
            return fetch_requests(self.crawler.settings)
        make: Any = self.scraper.spidermw.process_start
        named = inspect.signature(make).parameters.get("spider")
        # Later versions still take one, and warn of it.
        needs_spider = named is not None and named.default is inspect.Parameter.empty
        outputs: AsyncIterator[Any] = await (make(self.spider) if needs_spider else make())
        return outputs

    def iterate(self, requests: AsyncIterator[Any] | None) -> None:
        """Take these for what `start()` brings; None for no more."""
        self._start = requests

    async def take_next_of_start(self) -> bool:
        """Schedule one more request of `start()`; False when there was none to take."""
        if self._start is None or self.spider is None:
            return False
        await self._process_start_next()
        if not self.needs_backout():
            # As Scrapy: let what was just yielded be processed first.
            slot = self._slot
            if slot is None:
                return False
            slot.nextcall.schedule()
            await slot.nextcall.wait()
        return True

    # The end

    def spider_is_idle(self) -> bool:
        """Whether the whole crawl has nothing left to do; known only under the idle lease."""
        run = self._idle_run
        return run is not None and not (run.unit.requests or self.tracker.loose.requests)

    def run_idle(self, run: Run) -> None:
        """Fire `spider_idle` under its lease."""
        self.tracker.begin(run)
        run.pending += 1
        self._idle_run, asked = run, self.close_asked
        with working_for(run):
            self._spider_idle()
        self._idle_run = None
        reason = run.unit.close_reason
        if reason == "finished":
            # What the count says anyway; a reason of its own would stop instead of finish.
            run.unit.close_reason = ""
            self.close_asked = asked
        elif not (reason or run.unit.requests):
            run.keep_open = True
        self.tracker.request_done(run)
        self.crawler.host.stepper.poke()

    def _ask_to_close(self, reason: str) -> None:
        """The spider wants the crawl to end: an output of the lease that is worked on."""
        unit = self.tracker.unit()
        if unit is None:
            return
        unit.close_reason = unit.close_reason or reason
        self.close_asked = True
        self.crawler.host.stepper.poke()

    def close_spider_async(self, *, reason: str = "cancelled") -> Any:
        if self._closing or not self.running:
            if not self._closing:
                self._ask_to_close(reason)
            return super().close_spider_async(reason=reason)
        self._ask_to_close(reason)
        return _nothing()

    def stop_async(self) -> Any:
        if self._closing or self.spider is None:
            return super().stop_async()
        self._ask_to_close("shutdown")
        return _nothing()

    if not _HAS_ASYNC_CLOSE:

        def close_spider(self, spider: Any, reason: str = "cancelled") -> "Deferred[None]":
            if self._closing or not self.running:
                if not self._closing:
                    self._ask_to_close(reason)
                return super().close_spider(spider, reason)
            self._ask_to_close(reason)
            return succeed(None)

        def stop(self) -> "Deferred[None]":
            if self._closing or self.spider is None:
                return super().stop()
            self._ask_to_close("shutdown")
            return succeed(None)

    def shut(self, reason: str) -> "Deferred[None]":
        """Close the spider and stop the engine, in this process and now."""
        self._closing = True
        self.leased_start.cancel()
        return deferred_from_coro(self._shut(reason))

    async def _shut(self, reason: str) -> None:
        if self.spider is not None:
            if _HAS_ASYNC_CLOSE:
                await super().close_spider_async(reason=reason)
            else:
                await maybe_deferred_to_future(super().close_spider(self.spider, reason))
        if self.running:
            # Somebody called `crawler.stop()` before; then closing does not stop the engine.
            if _HAS_ASYNC_CLOSE:
                await super().stop_async()
            else:
                await maybe_deferred_to_future(super().stop())

    def abandon(self) -> None:
        """Wait for nothing that is in flight when the spider is closed: it is somebody else's."""
        if self._slot is not None:
            self._slot.inprogress = _Forgetful()
        scraper: Any = self.scraper.slot
        if scraper is not None:
            scraper.active, scraper.itemproc_size = _Forgetful(), 0
            scraper.queue.clear()

    def _hear_of_closing(self) -> None:
        scraper: Any = self.scraper
        name = "close_spider_async" if _HAS_ASYNC_CLOSE else "close_spider"
        close = getattr(scraper, name)

        async def closing() -> None:
            try:
                await close()
            except Exception as exc:
                self.crawler.host.failures.not_closed(exc)
                raise

        def closing_deferred(*args: Any) -> Any:
            def failed(failure: Failure) -> Failure:
                self.crawler.host.failures.not_closed(error_of(failure))
                return failure

            return close(*args).addErrback(failed)

        setattr(scraper, name, closing if _HAS_ASYNC_CLOSE else closing_deferred)

    def take_unsent(
        self,
        slots: Container[str] | None = None,
        call: Callable[..., object] = lambda function, *args: function(*args),
    ) -> list[Run]:
        """Leased requests that wait in the downloader for their turn; they will not be sent.

        Args:
            slots: of the downloader; None means all.
            call: calls what tells Scrapy so; later, where the user's code must not run now.
        """
        taken = []
        for name, slot in list(self.downloader.slots.items()):
            if slots is not None and name not in slots:
                continue
            for request, waiting in list(slot.queue):
                run = self.tracker.run_of(request)
                if run is None or not _is_untouched(run, request):
                    continue
                slot.queue.remove((request, waiting))
                self.tracker.void(run)
                taken.append(run)
                # The user's code is not to hear of it: the request is somebody else's now.
                request.errback = None
                given_back = IgnoreRequest("given back: the crawl stops")
                failure = Failure(given_back)  # type: ignore[no-untyped-call]
                call(waiting.errback, failure)
        return taken


class _Forgetful(set[Request]):
    """Requests that may end or not; nobody looks any more."""

    def remove(self, element: Request) -> None:
        self.discard(element)


def _is_untouched(run: Run, request: Request) -> bool:
    """Whether a lease has done nothing but wait to be sent."""
    return (
        run.state is RunState.RUNNING
        and run.pending == 1
        and not run.unit.outputs
        and bool(run.requests)
        and run.requests[0] is request
    )


def knows_robots(middleware: RobotsTxtMiddleware, netloc: str) -> bool:
    """Whether a robots.txt is known in this process, or under way."""
    return netloc in middleware._parsers


def teach_robots(middleware: RobotsTxtMiddleware, netloc: str, body: bytes) -> None:
    """Let the middleware use a robots.txt that another process has fetched."""
    kind: Any = middleware._parserimpl
    middleware._parsers[netloc] = build_from_crawler(kind, middleware.crawler, body)
