"""Owns the Scrapy scheduler of a child: a thin adapter on the frontier.

Runs in the event loop of a child. `next_request` reads the buffer of leases, `enqueue_request`
writes to the lease that brought the request; neither waits for anything.

A duplicate is found here only when this child is sure that the frontier knows the first one: it was
committed by this child, or brought by the same lease. The frontier finds the others, and its reply
makes this child say so. Requests that cannot leave the process are kept under their parent's lease,
which ends when they are done.
"""

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, cast

from scrapy import Request, Spider
from scrapy.core.scheduler import BaseScheduler
from scrapy.dupefilters import BaseDupeFilter, RFPDupeFilter
from scrapy.utils.misc import build_from_crawler, load_object
from scrapy.utils.request import RequestFingerprinter, RequestFingerprinterProtocol
from twisted.internet.defer import Deferred

from vscrapy_magic.runtime.tracker import Output, OutputKind, Run, confirmed, working_for
from vscrapy_magic.store.messages import NewRequest
from vscrapy_magic.store.values import CannotCrossError

if TYPE_CHECKING:
    from vscrapy_magic.runtime.crawl import LeasedCrawler
    from vscrapy_magic.runtime.engine import LeasedEngine

logger = logging.getLogger(__name__)

SEEN_MAX: Final = 100_000  # fingerprints remembered here; a forgotten one costs a queue entry's way
FILTERED_STAT: Final = "dupefilter/filtered"
_FINGERPRINT_BYTES: Final = 8


class LeaseScheduler(BaseScheduler):
    """What the engine of a child schedules with."""

    def __init__(self, crawler: "LeasedCrawler", dupefilter: BaseDupeFilter) -> None:
        self.df: Final = dupefilter
        self._crawler = crawler
        self._host = crawler.host
        self._tracker = crawler.tracker
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._told: set[str] = set()  # callbacks whose requests stay here
        self._kept: deque[tuple[Run | None, Request]] = deque()
        kind = type(dupefilter)
        self._filters = kind.request_seen is not BaseDupeFilter.request_seen
        # A filter of the user's own decides alone; the sender runs such a crawl on one worker.
        self._own_filter = self._filters and kind.request_seen is not RFPDupeFilter.request_seen
        legacy = getattr(kind, "request_fingerprint", None)
        self._legacy = legacy is not getattr(RFPDupeFilter, "request_fingerprint", None)
        # A filter may have been made with a fingerprinter of its own.
        self._fingerprinter: RequestFingerprinterProtocol = getattr(
            dupefilter, "fingerprinter", crawler.request_fingerprinter
        )
        plain = type(self._fingerprinter) is RequestFingerprinter
        self._is_digest = plain and not self._legacy
        self._host.scheduler = self
        self._host.stepper.filtered_stat = FILTERED_STAT if self._filters else ""

    @classmethod
    def from_crawler(cls, crawler: "LeasedCrawler") -> Self:  # type: ignore[override]
        kind = load_object(crawler.settings["DUPEFILTER_CLASS"])
        return cls(crawler, build_from_crawler(kind, crawler))

    def open(self, spider: Spider) -> "Deferred[None] | None":
        self._spider = spider
        return self.df.open()

    def close(self, reason: str) -> "Deferred[None] | None":
        return self.df.close(reason)

    def has_pending_requests(self) -> bool:
        return not self._engine.spider_is_idle()

    @property
    def _engine(self) -> "LeasedEngine":
        return cast("LeasedEngine", self._crawler.engine)

    def __len__(self) -> int:
        return len(self._host.stepper.buffer) + len(self._kept)

    def next_request(self) -> Request | None:
        """A request whose slot has room; None when there is none now."""
        try:
            return self._next()
        except Exception as exc:  # noqa: BLE001 - it ends the crawl
            self._host.broken(exc)
            return None

    def _next(self) -> Request | None:
        stepper = self._host.stepper
        if self._kept:
            return self._next_kept()
        while not (stepper.draining or self._engine.close_asked):
            run = stepper.buffer.pop(self._host.slots.has_room)
            if stepper.is_low():
                stepper.poke()
            if run is None:
                return None
            request = self._begin(run)
            if request is not None:
                return request
        return None

    def _next_kept(self) -> Request:
        run, request = self._kept.popleft()
        if run is not None:
            self._tracker.attach(run, request)
        self._host.slots.begin(request, self._host.slots.key(request))
        self._count(run, "scheduler/dequeued")
        return request

    def _begin(self, run: Run) -> Request | None:
        """The leased request; None when it cannot be made here, which is an error of its own."""
        self._tracker.begin(run)
        run.pending += 1
        try:
            request = self._host.codec.decode_request(run.lease.payload)
        except Exception as exc:
            logger.exception("A request cannot be read (lease %d)", run.lease.lease_id)
            with working_for(run):
                self._host.failures.unreadable(exc, run.lease.payload)
            self._tracker.request_done(run)
            return None
        self._tracker.attach(run, request)
        self._host.slots.begin(request, run.lease.slot)
        self._count(run, "scheduler/dequeued")
        return request

    def _count(self, run: Run | None, key: str) -> None:
        with working_for(run):
            self._host.stats.inc_value(key)
            self._host.stats.inc_value(f"{key}/memory")

    def enqueue_request(self, request: Request) -> bool:
        """Make the request an output of the lease worked on; False for a known duplicate."""
        run = self._tracker.current()
        if run is not None and not run.live:
            return True
        fingerprint = None
        if self._filters and not request.dont_filter:
            if self._own_filter:
                if self._asked(self.df, self.df.request_seen, request):
                    return self._refuse(request)
            else:
                fingerprint = self._fingerprint(request)
        try:
            payload = self._host.codec.encode_request(request)
        except CannotCrossError as exc:
            return self._keep(request, run, fingerprint, exc)
        new = NewRequest(
            payload=payload,
            slot=self._host.slots.key(request),
            fingerprint=fingerprint,
            priority=request.priority,
            start=bool(request.meta.get("is_start_request", False)),
        )
        output = Output(OutputKind.REQUEST, new=new, request=request)
        if run is not None and run.is_published(output):
            self._count_enqueued()  # what the earlier run has counted is lost with its lease
            return True
        if fingerprint is not None and self._is_known(fingerprint, run):
            return self._refuse(request)
        self._tracker.add(output)
        self._count_enqueued()
        return True

    def _count_enqueued(self) -> None:
        self._host.stats.inc_value("scheduler/enqueued")
        self._host.stats.inc_value("scheduler/enqueued/memory")

    def _refuse(self, request: Request) -> bool:
        self.df.log(request, self._spider)
        return False

    def _is_known(self, fingerprint: int, run: Run | None) -> bool:
        """Whether this is a duplicate for sure; takes note of it."""
        if fingerprint in self._seen:
            self._seen.move_to_end(fingerprint)
            return True
        if run is None:
            return False
        if fingerprint in run.fingerprints:
            return True
        if len(run.fingerprints) >= SEEN_MAX:
            run.fingerprints.clear()  # of a very long lease; the frontier knows those before
        run.fingerprints.add(fingerprint)
        return False

    def _fingerprint(self, request: Request) -> int:
        if self._legacy and isinstance(self.df, RFPDupeFilter):
            data = bytes.fromhex(self._asked(self.df, self.df.request_fingerprint, request))
        else:
            maker = self._fingerprinter
            data = self._asked(maker, maker.fingerprint, request)
        if not self._is_digest:
            # Bytes of any kind and length: addresses, for one, have their first ones in common.
            data = hashlib.blake2b(data, digest_size=_FINGERPRINT_BYTES).digest()
        return int.from_bytes(data[:_FINGERPRINT_BYTES], "big", signed=True)

    def _asked(self, component: Any, ask: Callable[[Request], Any], request: Request) -> Any:
        """What a class of the user's says of a request; Scrapy only logs what it raises."""
        try:
            return ask(request)
        except Exception as exc:
            self._host.failures.not_scheduled(exc, component, ask.__name__, request)
            raise

    def _keep(
        self, request: Request, run: Run | None, fingerprint: int | None, why: CannotCrossError
    ) -> bool:
        """Let a request that cannot leave this process run here."""
        if fingerprint is not None and self._is_known(fingerprint, run):
            return self._refuse(request)
        name = getattr(request.callback, "__qualname__", "")
        level = logging.DEBUG if name in self._told else logging.WARNING
        self._told.add(name)  # one line for each callback: a spider may have a lambda per request
        logger.log(level, "%s stays on this worker: %s", request, why)
        if fingerprint is not None:
            self._remember(fingerprint)
        if run is not None:
            run.pending += 1
        self._kept.append((run, request))
        self._count(run, "scheduler/enqueued")
        self._engine.poke()
        return True

    def _remember(self, fingerprint: int) -> None:
        self._seen[fingerprint] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)

    def accepted(self, sent: list[Output], dropped: list[Output]) -> None:
        """Requests were committed; `dropped` were duplicates, which the frontier has counted."""
        for fingerprint in confirmed(sent):
            self._remember(fingerprint)
        for output in dropped:
            if output.request is not None:
                with self._host.stats.muted(FILTERED_STAT):
                    self.df.log(output.request, self._spider)
                self._host.request_dropped(output.request)

    def forget(self, run: Run) -> None:
        """A lease was lost: what it kept here is not to be run."""
        self._kept = deque(entry for entry in self._kept if entry[0] is not run)
