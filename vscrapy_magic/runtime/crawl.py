"""Owns one crawl in one child: Scrapy's crawler with the parts of this package put in.

Runs in the event loop of a child. The parts know each other through the `Host` here; what they
decide among themselves stands in their own modules.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import Settings
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from vscrapy_magic.errors import InternalError, StateError, VscrapyError
from vscrapy_magic.runtime.batch import Taken
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.runtime.cookies import Cookies
from vscrapy_magic.runtime.engine import LeasedEngine
from vscrapy_magic.runtime.failures import Failures
from vscrapy_magic.runtime.fetching import lent_cookies, response_record
from vscrapy_magic.runtime.link import Link
from vscrapy_magic.runtime.loader import KEEPS_STATE
from vscrapy_magic.runtime.recording import Recording
from vscrapy_magic.runtime.scheduler import LeaseScheduler
from vscrapy_magic.runtime.settings import LiveSettings, begin_with
from vscrapy_magic.runtime.signals import LeaseSignals
from vscrapy_magic.runtime.slots import Slots
from vscrapy_magic.runtime.stats import CrawlStats
from vscrapy_magic.runtime.stepper import Stepper
from vscrapy_magic.runtime.strays import Strays
from vscrapy_magic.runtime.tracker import (
    Output,
    OutputKind,
    Run,
    RunState,
    Tracker,
    working_for,
)
from vscrapy_magic.store.control import Control, Value
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName
from vscrapy_magic.store.messages import CookieChange, CrawlState, Lease, LeaseKind, StepReply

logger = logging.getLogger(__name__)

_CANCELLED: Final = "cancelled"
MAKE_WAY_S: Final = (
    1.0  # for what is in flight when newer code comes into force; then it runs again
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A child's place in a crawl.

    Attributes:
        phase: is told what the child does from now on.
        code_version: of the source that runs here.
        secrets: values that nothing may show.
        records: whether the pages of the crawl are recorded.
        failed: is called with each exception that user code let go, where it was caught.
        admit: called when all that the spider consists of is made, and nothing is open yet.
    """

    frontier: Frontier
    token: MemberToken
    phase: Callable[[str], None]
    worker: WorkerName
    code_version: int = 1
    secrets: tuple[str, ...] = ()
    records: bool = False
    failed: Callable[[object], object] = lambda _exc: None
    admit: Callable[[], None] = lambda: None


class LeasedCrawler(Crawler):
    """Scrapy's crawler, whose requests are leases of a crawl."""

    host: "Host"
    signals: LeaseSignals

    def __init__(self, spidercls: type[Spider], settings: Settings, seat: Seat) -> None:
        store, crawl_id = seat.frontier.store, seat.frontier.crawl_id
        self.control, self.changed = Control(store).get(crawl_id)
        super().__init__(spidercls, begin_with(settings, self.changed), init_reactor=True)
        self.lent_cookies = lent_cookies(store, self.settings)
        self.tracker = Tracker()
        self.signals = LeaseSignals(self, self.tracker)
        self.seat = seat

    def _create_engine(self) -> LeasedEngine:
        stop = getattr(self, "stop_async", None) or self.stop
        engine = LeasedEngine(self, lambda _: stop())
        self.seat.admit()
        self.host = Host(self, engine)
        return engine


def post(function: Callable[..., object], *args: object) -> None:
    """Call a function in the event loop, in nobody's name; safe to call from any thread."""
    from twisted.internet import reactor

    running: Any = reactor
    running.callFromThread(_loosely, function, *args)


def _loosely(function: Callable[..., object], *args: object) -> None:
    with working_for(None):
        function(*args)


class Host:
    """What the parts of one crawl do together; every method is for the event loop."""

    scheduler: LeaseScheduler

    def __init__(self, crawler: LeasedCrawler, engine: LeasedEngine) -> None:
        spider = crawler.spider
        if spider is None:
            raise AssertionError("an engine is made after its spider")
        if crawler.settings.getbool(KEEPS_STATE):
            spider.state = {}  # type: ignore[attr-defined]  # as Scrapy's extension for a JOBDIR
        self._crawler = crawler
        self._engine = engine
        self._tracker = crawler.tracker
        self.error: VscrapyError | None = None
        self._close_reason = ""
        self._asked_stats = False  # those of the whole crawl, before the end
        self._leaving = False  # this child goes; the crawl goes on
        self._making_way = False  # the same, and soon
        self.codec: Final = SpiderCodec(spider)
        self.failures: Final = Failures(crawler, self.codec)
        self.recording: Final = Recording(crawler, self.codec) if crawler.seat.records else None
        if self.recording is not None:
            engine.before_callbacks(self.recording.called)
        self.codec.on_text = self.failures.sent_as_text
        crawler.signals.tell = self.failures.handler_failed
        self._strays: Final = Strays(self.failures.nobody_waited, post)
        self._strays.listen()
        self.stats: Final = cast("CrawlStats", crawler.stats)
        self.slots: Final = Slots(engine.downloader, crawler, engine.local_slot, crawler.changed)
        self.cookies: Final = Cookies(engine.downloader.middleware.middlewares, crawler.tracker)
        self.link: Final = Link(crawler.seat.frontier, crawler.seat.token, post)
        self.stepper: Final = Stepper(
            self.link,
            crawler.seat.token,
            self,
            tracker=crawler.tracker,
            slots=self.slots,
            stats=self.stats,
            concurrency=crawler.settings.getint("CONCURRENT_REQUESTS"),
        )
        self.stepper.control = crawler.control
        self.stepper.code_version = crawler.seat.code_version
        self._settings = LiveSettings(crawler, engine.downloader, self.slots, self.stepper.pace)
        self._asked_settings = False  # whether they are on their way
        crawler.signals.connect(self._item_scraped, signals.item_scraped)
        crawler.signals.connect(self._response_received, signals.response_received)
        self.link.start(self.stepper.woken)

    # What Scrapy tells.

    def opened(self) -> None:
        """The spider is open: from now on this child takes part."""
        self._settings.begin(self._crawler.changed)
        self.cookies.apply(self._crawler.lent_cookies)
        self._crawler.seat.phase("running")
        self.stepper.poke()

    def downloaded(self, run: Run, request: Request, result: Any) -> None:
        """The downloader is done with a leased request."""
        self.slots.finish(request)
        if isinstance(result, Failure) and run.live:
            with working_for(run):
                self.failures.download_failed(result, request)

    def processed(self, run: Run, request: Request, result: Any) -> None:
        """Scrapy is done with what the downloader brought for a leased request."""
        if self.recording is not None and isinstance(result, Response):
            self.recording.ended(run, result.request or request)

    def fetched(self, response: Response) -> None:
        """The page that somebody wants to look at is here."""
        record = response_record(response)
        self._tracker.add(Output(OutputKind.ITEM, data=record, identity=record))

    def _item_scraped(self, item: Any) -> None:
        try:
            record = self.codec.encode_item(item)
        except Exception as exc:
            # Not even its text; Scrapy logs what a handler raises, and goes on without the item.
            self.failures.sent_as_text(item, exc)
            raise
        self._tracker.add(Output(OutputKind.ITEM, data=record, identity=record))

    def _response_received(self, response: Response, request: Request) -> None:
        unit = self._tracker.unit()
        if unit is not None:
            unit.counts.pages += 1
        self.cookies.response_received(response, request)

    # What the stepper asks and tells.

    def active(self) -> int:
        return len(self._engine.downloader.active)

    def is_full(self) -> bool:
        scraper = self._engine.scraper.slot
        return scraper is None or scraper.needs_backout()

    def begin(self, lease: Lease, published: bytes) -> None:
        run = Run(lease, published)
        if self.stepper.draining:
            self.stepper.returned.append(run)
        elif lease.kind is LeaseKind.START:
            self._engine.leased_start.run(run)
        else:
            self._engine.run_idle(run)

    def refill(self) -> None:
        self._engine.poke()

    def committed(self, taken: list[Taken]) -> None:
        for each in taken:
            self.stats.committed(each.counts)
            self.cookies.settled(each.cookies)
        self._engine.room.made()

    def accepted(self, sent: list[Output], dropped: list[Output]) -> None:
        self.scheduler.accepted(sent, dropped)

    def request_dropped(self, request: Request) -> None:
        """Let handlers know that a request will never run."""
        self._crawler.signals.send_catch_log(
            signals.request_dropped, request=request, spider=self._crawler.spider
        )

    def cookies_changed(self, changes: tuple[CookieChange, ...]) -> None:
        self.cookies.apply(changes)

    def lost(self, taken: list[Taken]) -> None:
        for each in taken:
            run = each.run
            if run is None:
                continue
            logger.warning(
                "Lease %d went to another worker; what it brought here is not used",
                run.lease.lease_id,
            )
            self.stats.take_back(each.counts)
            self.cookies.settled(each.cookies)
            self._throw_away(run)
            if each.close_reason or run.unit.close_reason:
                self._engine.close_asked = False
        self._engine.room.made()

    def take_unsent(self, slots: frozenset[str]) -> list[Run]:
        return self._engine.take_unsent(slots)

    def take_all_unsent(self) -> list[Run]:
        runs = self._engine.take_unsent(call=post)
        start = self._engine.leased_start.plain()
        if start is not None:
            self._throw_away(start)
            runs.append(start)
        return runs

    def control_moved(self) -> None:
        if not self._asked_settings:
            self._asked_settings = True
            frontier = self._crawler.seat.frontier
            control = Control(frontier.store)
            self.link.ask(lambda: control.get(frontier.crawl_id), self._settings_came)

    def _settings_came(self, answer: tuple[int, dict[str, Value]] | VscrapyError) -> None:
        self._asked_settings = False
        if isinstance(answer, VscrapyError):
            logger.warning("Changed settings could not be read, trying again: %s", answer)
            return
        self.stepper.control, values = answer
        self._settings.apply(values)
        # The frontier is told at once what follows for shares of the others.
        self.stepper.woken()
        self._engine.poke()

    def state_changed(self, reply: StepReply) -> None:
        if reply.state is CrawlState.STOPPING:
            self._drain()
            if self._leaving:
                # The crawl, too, is to end: nobody needs the rest.
                self._engine.leased_start.cancel()
        elif reply.state is CrawlState.CLOSING:
            self._drain()
            self._close_knowing_all(reply.close_reason)

    def records_full(self) -> None:
        if self.recording is not None:
            self.recording.full = True

    def failed(self, error: VscrapyError) -> None:
        """The crawl is over, this child is out of it, or the store is."""
        self.error = error
        if isinstance(error, StateError):
            logger.info("%s", error)
        else:
            logger.error("%s", error)
        self.stepper.draining = True
        for run in [*self.stepper.buffer.clear(), *self._tracker.running.values()]:
            self._tracker.void(run)
        self._engine.take_unsent()
        self._engine.room.made()
        self.close(_CANCELLED)

    def broken(self, exc: Exception) -> None:
        """An error of this package's own, in a place where nobody else would hear of it.

        Its leases would be renewed for ever: the loop goes on and answers. So the crawl ends.
        """
        if self.error is not None:
            return
        logger.critical("This is a bug of vscrapy_magic; the crawl cannot go on", exc_info=exc)
        self.stepper.end()
        self.failed(InternalError(f"a bug of vscrapy_magic, please report it: {exc!r}"))

    # The end.

    def leave(self) -> None:
        """Finish what is begun, then close here; others go on with the crawl. Idempotent."""
        if self._leaving:
            return
        logger.info("This worker leaves the crawl when it is done with what it has begun")
        self._leaving = True
        self._drain()
        self.stepper.woken()
        self._close_if_done()

    def _drain(self) -> None:
        """Start no further request, and give back what was not started."""
        if self.stepper.draining:
            return
        self.stepper.draining = True
        returned = self.stepper.buffer.clear()
        for run in returned:
            self._tracker.void(run)
        self.stepper.returned += [*returned, *self._engine.take_unsent()]
        if not self._leaving:
            self._engine.leased_start.cancel()

    def make_way(self) -> None:
        """Newer code is in force: finish what ends soon, give the rest back, and go. Idempotent."""
        if self._making_way:
            return
        self._making_way = True
        self.leave()
        from twisted.internet import reactor

        running: Any = reactor
        running.callLater(MAKE_WAY_S, _loosely, self._give_up)

    def _give_up(self) -> None:
        """What has not ended runs again, in a child with the newer code."""
        begun = [run for run in self._tracker.running.values() if run.state is RunState.RUNNING]
        if self._close_reason or not begun:
            return
        logger.info("%d requests did not end in time: they run again with newer code", len(begun))
        for run in begun:
            self._throw_away(run)
        self.stepper.returned += begun
        self._engine.abandon()
        self._engine.room.made()
        self.stepper.woken()

    def _throw_away(self, run: Run) -> None:
        """What a lease has brought here and not committed is not used."""
        self.stats.take_back(run.unit.counts)
        self.cookies.settled(run.unit.cookies)
        self._tracker.void(run)
        self.scheduler.forget(run)

    def _close_if_done(self) -> None:
        if self._leaving and not self._tracker.running and not self.stepper.returned:
            self.close("shutdown")

    def step_done(self) -> None:
        """A reply was worked in."""
        self._close_if_done()

    def _close_knowing_all(self, reason: str) -> None:
        """Close the spider; what its `closed()` reads of the stats is what all workers counted."""
        if self._asked_stats:
            return
        self._asked_stats = True
        frontier = self._crawler.seat.frontier
        crawls = Crawls(frontier.store)

        def came(answer: dict[str, bytes] | VscrapyError) -> None:
            if isinstance(answer, dict):
                self.stats.learn(answer)
            self.close(reason)

        self.link.ask(lambda: crawls.stats(frontier.crawl_id), came)

    def close(self, reason: str) -> None:
        """Close the spider in this process; the crawler's `crawl` ends then. Idempotent."""
        if self._close_reason:
            return
        self._close_reason = reason or _CANCELLED
        self._crawler.seat.phase("closing")
        self._engine.shut(self._close_reason).addErrback(
            lambda failure: logger.error("Closing failed", exc_info=failure.value)
        )

    def flushed(self) -> "Deferred[None]":
        """Fires when everything that is left has been committed, or cannot be."""
        self._strays.close()
        done: Deferred[None] = Deferred()
        self.stepper.flush(lambda: done.callback(None))
        return done
