"""Owns when a child steps, and what it does with the reply.

Runs in the event loop of a child; the waiting is done by the threads of `link.py`. There is at most
one step under way; while it is, the next batch gathers.
"""

import logging
from collections import deque
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Any, Final, Protocol

from vscrapy_magic.errors import LeaseLostError, VscrapyError
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.runtime.batch import Batch, Taken, gather, settle
from vscrapy_magic.runtime.buffer import Buffer
from vscrapy_magic.runtime.link import Link, Outcome
from vscrapy_magic.runtime.pace import Pace
from vscrapy_magic.runtime.slots import Slots
from vscrapy_magic.runtime.stats import CrawlStats
from vscrapy_magic.runtime.tracker import Output, Run, Tracker
from vscrapy_magic.store.keys import MemberToken
from vscrapy_magic.store.messages import (
    CookieChange,
    CrawlState,
    Lease,
    LeaseKind,
    Step,
    StepReply,
)

logger = logging.getLogger(__name__)

SLOW_TICK_S: Final = 5.0  # a parked child looks by itself; a lost wake-up costs no more
STAND_STILL_S: Final = 2.0  # for an answer; a store that is away is not waited for
FAILURE_S: Final = 0.1  # between two steps while a failure waits: somebody may be looking for it
REST_S: Final = 0.2  # after giving leases back a child that has work asks for none
_IDLE_AGAIN_S: Final = 1.05  # the frontier grants the idle lease again after a second
_ENDING: Final = frozenset({CrawlState.STOPPING, CrawlState.CLOSING})
_PARKING: Final = frozenset({CrawlState.RUNNING, CrawlState.WAITING})


class Host(Protocol):
    """What the stepper needs of the crawl in this process."""

    def active(self) -> int:
        """Leased requests that are being downloaded or processed."""

    def is_full(self) -> bool:
        """Whether Scrapy cannot take any request now."""

    def begin(self, lease: Lease, published: bytes) -> None:
        """A start or idle lease was granted."""

    def accepted(self, sent: list[Output], dropped: list[Output]) -> None:
        """Requests were committed; some of them had been seen before."""

    def cookies_changed(self, changes: tuple[CookieChange, ...]) -> None:
        """Cookies as they are from now on."""

    def refill(self) -> None:
        """The buffer got new leases."""

    def take_unsent(self, slots: frozenset[str]) -> list[Run]:
        """Leases of these downloader slots that wait for their turn; they will not be sent."""

    def take_all_unsent(self) -> list[Run]:
        """The same of all slots, while the event loop stands still: nothing of the user's runs."""

    def control_moved(self) -> None:
        """A user changed settings that this child does not have yet."""

    def leave(self) -> None:
        """This child is one too many."""

    def make_way(self) -> None:
        """Newer code is in force: this child is to go soon."""

    def state_changed(self, reply: StepReply) -> None:
        """The crawl is to stop or to close."""

    def lost(self, taken: list[Taken]) -> None:
        """Leases went to others; this is what they had brought to a step."""

    def committed(self, taken: list[Taken]) -> None:
        """A step with this was accepted."""

    def step_done(self) -> None:
        """An answer was worked in."""

    def records_full(self) -> None:
        """No more pages are kept of this crawl."""

    def failed(self, error: VscrapyError) -> None:
        """No further step is possible."""

    def broken(self, exc: Exception) -> None:
        """An error of this package's own: no further step is possible, either."""


class Stepper:
    """Decides about steps; every method is for the event loop."""

    def __init__(
        self,
        link: Link,
        token: MemberToken,
        host: Host,
        *,
        tracker: Tracker,
        slots: Slots,
        stats: CrawlStats,
        concurrency: int,
    ) -> None:
        self._link = link
        self._token = token
        self._host = host
        self._tracker = tracker
        self._slots = slots
        self._stats = stats
        self.buffer: Final = Buffer()
        self.pace: Final = Pace(concurrency)
        self.state = CrawlState.RUNNING
        self.draining = False  # no request is started any more
        self.filtered_stat = ""
        self.code_version = 1
        self.control = 1  # version of the crawl's settings that this child works by
        self._telling = 0
        self._told = 0  # the one that the frontier knows the limits of
        self.returned: list[Run] = []  # to be given back with the next step
        self._seq = 0
        self._sent: deque[Batch] = deque()  # two at most: see `stand_still`
        self._sent_at = 0.0
        self._parked = False
        self._woken = True
        self._hungry = 0
        self.queued = 1  # of the whole crawl, as of the last step; before it, there may be some
        self._rest_until = 0.0
        self._look_at = 0.0  # when to step even if nothing happened
        self._last_lease = 0
        self._cookies_seen = 0
        self._timer: Any = None
        self._over = False
        self._asked = 0  # leases that the step under way asks for
        self._then: Callable[[], None] | None = None

    def poke(self) -> None:
        """Something changed: step now, or set the clock."""
        if self._sent or self._over:
            return
        try:
            now = monotonic()
            due = self._due(now)
            if due <= now:
                self._send(now)
            else:
                self._set_timer(due - now)
        except Exception as exc:  # noqa: BLE001 - it ends the crawl
            self._host.broken(exc)

    def woken(self) -> None:
        """Somebody has work for this child, wants some of its, or the crawl's state changed."""
        self._woken = True
        self.poke()

    def stand_still(self) -> None:
        """The event loop is about to stand still: give back what was not begun, send what is done.

        Called in the middle of user code, so nothing of the user's is called: answers are worked in
        when the loop runs again. A step whose answer is on its way grants leases perhaps; they go
        back, too, with a step of their own that follows it at once. Blocks for a round trip or two.
        """
        granted = self._link.take_leases(STAND_STILL_S) if self._sent else ()
        if self._over or granted is None:
            return
        runs = self.buffer.clear()
        for run in runs:
            self._tracker.void(run)
        runs += self._host.take_all_unsent()
        runs += [Run(lease) for lease in granted]
        now = monotonic()
        batch = gather(self._tracker, now, starving=True)
        batch.released, self.returned = [*self.returned, *runs], []
        gives_up = self._slots.stand_still()
        if batch or gives_up:
            self._seq += 1
            self._dispatch(batch, now, asks=False)
            self._link.take_leases(STAND_STILL_S)

    def flush(self, then: Callable[[], None]) -> None:
        """Send all that is left, then call `then`; no leases are asked for any more."""
        self.draining = True
        self._then = then
        self._finish_if_flushed()

    def end(self) -> None:
        """No step will be sent any more."""
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def is_low(self) -> bool:
        """Whether more leases are wanted soon."""
        return self.pace.is_low(self._host.active(), len(self.buffer))

    def _want(self) -> int:
        if self.draining or self.state in _ENDING or self._host.is_full():
            return 0
        return self.pace.want(self._host.active(), len(self.buffer))

    def _due(self, now: float) -> float:
        """When the next step should go; `now` or earlier means at once."""
        tracker, buffered = self._tracker, len(self.buffer)
        busy = len(tracker.running) > len(tracker.done)
        spaced = self.pace.spaced_at
        outputs = bool(tracker.done or tracker.loose)
        if self._woken or self.returned:
            return now
        if not busy and outputs:
            return max(now, spaced)
        due = self._look_at if self._look_at else now + SLOW_TICK_S
        if outputs:
            due = min(due, self._sent_at + self.pace.interval_s)
        if any(run.has_failed for run in tracker.done):
            due = min(due, max(spaced, self._sent_at + FAILURE_S))
        brought = any(run.unit.requests for run in tracker.done) or tracker.loose.requests
        low = self.is_low()
        if brought and (low or self._hungry):
            due = min(due, spaced)
        # With nothing queued anywhere, asking serves only to be woken later.
        useful = self.queued or brought or not buffered
        if low and useful and not self._parked and now >= self._rest_until and self._want():
            due = min(due, spaced)
        if any(tracker.due_parts(now, starving=self._starving(buffered))):
            due = min(due, spaced)
        part_at = tracker.next_part_at()
        if part_at is not None:
            due = min(due, max(spaced, part_at))
        release_at = self._slots.next_release_at()
        if release_at is not None and self._parked:
            due = min(due, max(spaced, release_at))
        return due

    def _starving(self, buffered: int) -> bool:
        return self._hungry > 0 or (buffered == 0 and not self._host.is_full())

    def _set_timer(self, delay_s: float) -> None:
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= self._timer.seconds() + delay_s:
                return
            self._timer.cancel()
        from twisted.internet import reactor

        running: Any = reactor
        self._timer = running.callLater(delay_s, self.poke)

    def _send(self, now: float) -> None:
        self.pace.measure(self._tracker.completions, now)
        batch = gather(self._tracker, now, starving=self._starving(len(self.buffer)))
        batch.released, self.returned = self.returned, []
        batch.released += self._give_back()
        self._woken = False
        self._seq += 1
        self._dispatch(batch, now)

    def _give_back(self) -> list[Run]:
        """Leases that a child with nothing to do had better take."""
        if not self._hungry or self.draining:
            return []
        spare = self.pace.spare(len(self.buffer))
        count = ceil(spare * self._hungry / (1 + self._hungry))
        runs = self.buffer.take_back(count, self._slots.nominal.exclusive)
        if runs:
            self._rest_until = monotonic() + REST_S
        for run in runs:
            self._tracker.void(run)
        return runs

    def _dispatch(self, batch: Batch, now: float, *, asks: bool = True) -> None:
        self._sent.append(batch)
        self._sent_at = now
        self.pace.stepped(now)
        buffered = len(self.buffer)
        fields = batch.fields()
        self._asked = self._want() if asks and not batch.released else 0
        self._link.send(
            Step(
                token=self._token,
                seq=self._seq,
                want=self._asked,
                unstarted=0 if self.draining else self.pace.spare(buffered),
                last_lease=self._last_lease,
                cookies_seen=self._cookies_seen,
                want_stats=self._stats.asked,
                filtered_stat=self.filtered_stat,
                code_version=self.code_version,
                **self._limits({r.slot for r in fields["requests"]}),
                slots=self._slots.uses(self.buffer.by_slot(), self.pace.prefetch),
                **fields,
            ),
            self._answered,
        )

    def _limits(self, names: set[str]) -> dict[str, Any]:
        """What the step says of slots; of all of them when this child's settings are news."""
        limits, nominal = {x.slot: x for x in self._slots.limits(names)}, self._slots.nominal
        self._telling = self.control
        if self._told != self.control:
            limits |= {x.slot: x for x in nominal.own()}
        return {
            "limits": tuple(limits.values()),
            "default_limit": nominal.default() if self._told != self.control else None,
            "control": self.control,
        }

    def _answered(self, outcome: Outcome, published: dict[str, bytes]) -> None:
        batch = self._sent.popleft()
        if isinstance(outcome, StepReply):
            try:
                self._accept(batch, outcome, published)
            except Exception as exc:  # noqa: BLE001 - it ends the crawl
                self._host.broken(exc)
        elif isinstance(outcome, LeaseLostError):
            # Nothing was written: the same step again, without what the lost leases brought.
            self._host.lost(batch.without(outcome.lease_ids))
            self._dispatch(batch, monotonic())
            return
        else:
            self.end()
            self._host.failed(outcome)
        self._finish_if_flushed()
        self._host.step_done()
        self.poke()

    def _finish_if_flushed(self) -> None:
        if self._then is None or self._sent:
            return
        if not self._over and (self._tracker.done or self._tracker.loose):
            self._send(monotonic())
        else:
            self._finish()

    def _finish(self) -> None:
        self.end()
        then, self._then = self._then, None
        if then is not None:
            then()

    def _accept(self, batch: Batch, reply: StepReply, published: dict[str, bytes]) -> None:
        self.queued = reply.totals.queued
        settle(batch, self._tracker)
        self._host.committed(batch.taken)
        if reply.stats:
            self._stats.asked = False
            self._stats.learn(reply.stats)
        sent = batch.new_requests()
        self._host.accepted(sent, [sent[place] for place in reply.dropped])
        if reply.cookies:
            self._host.cookies_changed(reply.cookies)
        self._cookies_seen = reply.cookie_no
        self._told = self._telling
        self._share(reply)
        self._note(batch, reply)
        if reply.leases:
            fail_point("after_lease")
            self._take(reply, published)
        if reply.control > self.control:
            self._host.control_moved()
        if reply.state is not self.state or reply.state in _ENDING:
            self.state = reply.state
            self._host.state_changed(reply)
        if reply.leave:
            self._host.leave()
        if reply.records_full:
            self._host.records_full()
        if reply.patched:
            self._host.make_way()

    def _share(self, reply: StepReply) -> None:
        """Take shares as they are now; what this child may not send any more it gives back."""
        for share in reply.shares:
            # One that became smaller is somebody else's as soon as the frontier hears of it.
            self._woken |= self._slots.grant(share)
        # Also what reaches the downloader later: middlewares may have held it.
        cut = frozenset(self._slots.cut)
        if not cut:
            return
        runs = self.buffer.take_back(len(self.buffer), lambda slot: slot not in cut)
        for run in runs:
            self._tracker.void(run)
        self.returned += [*runs, *self._host.take_unsent(cut)]

    def _note(self, batch: Batch, reply: StepReply) -> None:
        """What the reply means for the next steps."""
        self._parked = self._asked > 0 and not reply.leases and reply.state in _PARKING
        self._hungry = max(0, reply.hungry - self._parked)
        now = monotonic()
        self._look_at = now + SLOW_TICK_S
        if any(taken.ends and taken.run and taken.run.keep_open for taken in batch.taken):
            self._look_at = now + _IDLE_AGAIN_S
        if batch.full:
            self._woken = True

    def _take(self, reply: StepReply, published: dict[str, bytes]) -> None:
        for lease in reply.leases:
            self._last_lease = max(self._last_lease, lease.lease_id)
            keys = published.get(lease.origin, b"")
            if lease.kind is LeaseKind.REQUEST:
                run = Run(lease, keys)
                if self.draining:
                    self.returned.append(run)
                    continue
                self._tracker.running[lease.lease_id] = run
                self.buffer.put(run)
            else:
                self._host.begin(lease, keys)
        if len(self.buffer):
            self._host.refill()
