"""Owns how a sender follows its crawl: a thread that collects outputs and log lines to the end.

Runs in the sender's process, one thread a crawl. Outputs go to the spool, then to whoever writes
feeds, and are acknowledged after that; log lines and the crawl's state go to listeners.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from vscrapy_magic.errors import (
    CrawlNotFoundError,
    NotCollectorError,
    StoreError,
    StoreReadOnlyError,
    StoreRolledBackError,
    VscrapyError,
)
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.sender.collecting import Collecting
from vscrapy_magic.sender.spool import Spool, SpoolFullError
from vscrapy_magic.store.arrivals import Arrivals, Arrived
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, Mover
from vscrapy_magic.store.files import Files
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.outputs import Doorbell, Output
from vscrapy_magic.store.presence import Liveness, Presence
from vscrapy_magic.store.views import FINAL_STATES, CrawlView

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25  # between two looks at a crawl that brings nothing
LOOK_MAX_S: Final = 1.0  # the same, when nothing has changed for a while
UNCHANGED_S: Final = 5.0  # that while
GATHER_MIN_S: Final = 0.01  # after something came, before more is asked for; doubles while it does
GATHER_MAX_S: Final = 0.1  # so that a fast crawl costs ten rounds a second, and a first item none
CALM_S: Final = 0.2  # without anything new; then what comes next is asked for at once
LOOK_BUSY_S: Final = 0.1  # between two looks at one that brings much
RETRY_S: Final = 1.0  # before a server that is away, or a full disk, is tried again
ALONE_S: Final = 1.5  # without a worker: then it is said that there is none
STARTING_S: Final = 10.0  # those of a local cluster are not known before they have imported Scrapy
FILES_WITHIN_S: Final = 10.0  # of the end: a worker that died with its files sends none any more
QUIET_S: Final = 0.5  # without a line after the end: then the last line has come
JUDGE_AFTER_S: Final = (
    1.5  # since a supervisor judged the children: then no worker is left to do it
)
_ALONE_AGAIN_S: Final = 60.0
_REFUSAL_AFTER_S: Final = 2.0  # without a change: then it is seen whether the server takes writes
_WAITING_FOR_WORKERS: Final = frozenset({CrawlState.QUEUED, CrawlState.WAITING})
SENDER: Final = WorkerName("sender")  # in whose name the sender's own lines are shown


class Listener(Protocol):
    """Who is told what a crawl does; called from its follower's thread, so be quick."""

    def lines(self, lines: Sequence[LogLine]) -> None:
        """Lines of workers, and of the sender itself."""

    def view(self, view: CrawlView) -> None:
        """The crawl as it is now: with each change, and at most ten times a second."""

    def ended(self, view: CrawlView) -> None:
        """The crawl is over, and all that it brought is in the spool. Called once."""


class Follower:
    """Follows one crawl to its end, in a thread of its own.

    Args:
        collecting: whether, and from where on, this process takes the outputs.
        deliver: gets the outputs that were new, before they are acknowledged.
        pulse: called a few times a second, also while the server is away; raises nothing.

    Attributes:
        log_after: lines after that entry are shown and kept; to be set before it starts.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        view: CrawlView,
        listener: Listener,
        *,
        collecting: Collecting,
        deliver: Callable[[Sequence[Output]], None] = lambda _: None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._spool = spool
        self._view = view
        self._listener = listener
        self._collecting = collecting
        self._deliver = deliver
        self._pulse = pulse
        self._crawls = Crawls(store)
        self._arrivals = Arrivals(store, view.crawl_id)
        self._unacked: Output | None = None
        self.log_after = "0-0"
        self._presence = Presence(store)
        self._frontier = Frontier(store, view.crawl_id)
        self._came = False
        self._looked = 0.0
        self._changed = time.monotonic()
        self._gather_s = GATHER_MIN_S
        self._alone_since = 0.0
        self._alone_said = 0.0  # when it was last said that nobody is there; 0 for not yet
        self._judged_ms = 0
        self._judged = time.monotonic()  # when that was seen to move
        self._quiet_since = 0.0
        self._over_since = 0.0
        self._refusal: StoreError | None = None
        self._files = Files(store, view.crawl_id)
        self._files_coming = False
        self._problem: type[VscrapyError] | None = None  # what is wrong, as it was told
        self._answered = time.monotonic()  # when nothing was wrong yet
        self._older_said = False
        self._rolled_back = ""  # why not what the server says of the end counts
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"vscrapy-follow-{view.crawl_id}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Follow no further, and wait for the thread; idempotent, from any thread but its own."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._store.blocking_client() as client:
                bell = Doorbell(client, self._view.crawl_id)
                while not (self._stop.is_set() or self._is_done()):
                    self._turn(bell)
        except Exception:
            # A thread that dies must not leave its user waiting for ever.
            logger.exception("Crawl %s is followed no further", self._view.crawl_id)
            self._lose("it could not be followed; the log of this process says why")
        if self._stop.is_set():
            self._ack_last()
        else:
            self._listener.ended(self._view)

    def _ack_last(self) -> None:
        """Say what is kept here, so that whoever collects next does not do so once more."""
        claim = self._collecting.claim
        if self._unacked is None or claim is None or self._problem is not None:
            return
        try:
            self._arrivals.ack(self._unacked, claim, self._spool.item_count)
        except NotCollectorError:
            with contextlib.suppress(StoreError):
                self._collecting.refused()
        except StoreError as exc:
            logger.info("Crawl %s: the last items were not acknowledged: %s", claim, exc)

    def _is_done(self) -> bool:
        """Whether the crawl is over and nothing has come for a while."""
        if self._view.state not in FINAL_STATES or not self._quiet_since:
            return False  # the second: it was over before, and nothing has been asked yet
        if self._files_coming and time.monotonic() - self._over_since < FILES_WITHIN_S:
            return False
        return time.monotonic() - self._quiet_since > QUIET_S

    def _turn(self, bell: Doorbell) -> None:
        try:
            came = self._fetch() | self._take_files()
            # One that begins to collect at the end of a crawl has all of it before it.
            came |= self._collecting.try_again(is_over=self._view.state in FINAL_STATES)
            self._tell_problem(self._refusal)
            now = time.monotonic()
            self._quiet_since = now if came or not self._quiet_since else self._quiet_since
            if came:
                self._stop.wait(self._gather_s)
                self._gather_s = min(GATHER_MAX_S, 2 * self._gather_s)
            else:
                self._wait(bell)
        except NotCollectorError:
            self._see_collector()
        except StoreRolledBackError as exc:
            self._roll_back(exc)
        except CrawlNotFoundError:
            self._lose(self._forgotten)
        except (StoreError, SpoolFullError) as exc:
            self._be_patient(exc)

    def _see_collector(self) -> None:
        """Somebody else collects: what was not acknowledged is theirs."""
        self._unacked = None
        try:
            self._collecting.refused()
        except CrawlNotFoundError:
            self._lose(self._forgotten)
        except StoreError as exc:
            self._be_patient(exc)

    def _be_patient(self, exc: VscrapyError) -> None:
        if not self._stop.is_set():
            self._tell_problem(exc)
            self._pulse()  # a heartbeat that was killed as well is what brings a local cluster back
            self._stop.wait(RETRY_S)

    @property
    def _forgotten(self) -> str:
        return (
            f"the server at {self._store.address} does not know it any more: it was emptied, or "
            "started again without its data; run it again"
        )

    def _roll_back(self, exc: StoreRolledBackError) -> None:
        """The server forgot what is in the spool: what it does from now on is no part of this."""
        why = "the server lost what had been read; run it again, on one with appendfsync always"
        try:
            self._crawls.move(
                self._view.crawl_id,
                CrawlState.STORE_ROLLED_BACK,
                Mover.SENDER,
                reason=CrawlState.STORE_ROLLED_BACK,
                why=why,
            )
        except CrawlNotFoundError:
            self._lose(self._forgotten)
        except StoreError as away:
            self._be_patient(away)
        else:
            self._tell_problem(exc)
            self._rolled_back, self._unacked = why, None
            self._collecting.stop()

    def _wait(self, bell: Doorbell) -> None:
        """Until something comes, and a little longer when much has come of late."""
        begun = time.monotonic()
        with self._store.errors_wrapped():
            rang = bell.wait(
                self._collecting.after,
                self.log_after,
                self._wait_s(),
                with_outputs=self._collecting.claim is not None,
            )
        if time.monotonic() - begun > CALM_S:
            self._gather_s = GATHER_MIN_S
        elif rang and self._gather_s > GATHER_MIN_S:
            self._stop.wait(self._gather_s)

    def _wait_s(self) -> float:
        if self._view.state in FINAL_STATES:
            return LOOK_BUSY_S
        return LOOK_S if time.monotonic() - self._changed < UNCHANGED_S else LOOK_MAX_S

    def _fetch(self) -> bool:
        """One look at the crawl; whether it brought outputs or lines."""
        now = time.monotonic()
        kept_here = self._unacked is not None
        acked = self._unacked = self._unacked or self._collecting.take_unacked()
        arrived = self._arrivals.fetch(
            self._collecting.after,
            self.log_after,
            claim=self._collecting.claim,
            ack=acked,
            items=self._spool.item_count,
            with_view=not self._came or now - self._looked >= LOOK_BUSY_S,
            with_refusal=self._problem is StoreReadOnlyError
            or now - self._changed > _REFUSAL_AFTER_S,
        )
        self._refusal = arrived.refusal
        if acked is not None:
            self._unacked = None
            if kept_here:
                fail_point("sender_after_ack")
        self._take_outputs(arrived.outputs)
        self._take_lines(arrived)
        if arrived.view is not None:
            self._looked = now
            self._pulse()
            self._look(arrived.view)
            self._judge(arrived.judged_ms)
        self._came = bool(arrived.outputs or arrived.lines)
        return self._came

    def _take_outputs(self, outputs: list[Output]) -> None:
        """Keep them; they are acknowledged with the next look, when all have got them."""
        if not outputs:
            return
        self._see_older(outputs)
        fail_point("sender_before_spool")
        kept = self._spool.keep(outputs)
        self._unacked = outputs[-1]  # until the server has heard of it, though it goes away
        fail_point("sender_after_spool_before_ack")
        self._deliver(kept)

    def _see_older(self, outputs: Sequence[Output]) -> None:
        """Say once that a worker knows nothing of recorded pages."""
        if not self._view.spec.record_bytes or self._older_said:
            return
        older = next((o for o in outputs if o.record_count is None and o.item_count), None)
        if older is not None:
            self._older_said = True
            token = older.nonce.partition(" ")[0]
            names = [each.worker for each in self._view.members if each.token == token]
            self._say(
                logging.WARNING,
                f"{names[0] if names else 'a worker'} is older than --record: pages that it works "
                "on are not recorded; update vscrapy_magic there",
            )

    def _take_lines(self, arrived: Arrived) -> None:
        self.log_after = arrived.log_after
        if not arrived.lines:
            return
        if self._spool.collects:
            self._spool.keep_lines(arrived.lines)
        self._listener.lines(arrived.lines)

    def _take_files(self) -> bool:
        """Files that the spider wrote; they are asked for when the crawl is over."""
        if self._collecting.claim is None or self._view.state not in FINAL_STATES:
            return False
        self._over_since = self._over_since or time.monotonic()
        came, coming = self._spool.files.collect(self._files)
        self._files_coming = bool(coming)
        return came

    def _look(self, view: CrawlView) -> None:
        if self._rolled_back:
            state = CrawlState.STORE_ROLLED_BACK
            view = msgspec.structs.replace(
                view, state=state, close_reason=state, why=self._rolled_back
            )
        before, self._view = self._view, view
        if self._view.state in FINAL_STATES and before.state not in FINAL_STATES:
            self._quiet_since = time.monotonic()
        if self._view != before:
            self._changed = time.monotonic()
            self._listener.view(self._view)
        self._see_workers()

    def _judge(self, judged_ms: int) -> None:
        """See which children are gone, when no worker is left to see it.

        Otherwise a crawl whose workers all died at once would be said to run, and not end when it
        is told to stop.
        """
        now = time.monotonic()
        if judged_ms != self._judged_ms:
            self._judged_ms, self._judged = judged_ms, now
        elif self._view.members and not self._view.over and now - self._judged > JUDGE_AFTER_S:
            self._frontier.renew()

    def _see_workers(self) -> None:
        """Say it when a crawl waits because nobody is there to work on it, and when somebody is."""
        now = time.monotonic()
        if self._view.members or self._view.state not in _WAITING_FOR_WORKERS:
            if self._alone_said and self._view.members:
                alone_s = now - self._alone_since
                self._say(logging.INFO, f"a worker takes part, after {alone_s:.0f} s without any")
            self._alone_since = self._alone_said = 0.0
            return
        self._alone_since = self._alone_since or now
        is_soon = self._alone_said and now - self._alone_said < _ALONE_AGAIN_S
        env = self._view.spec.env
        if is_soon or now - self._alone_since < (STARTING_S if env else ALONE_S):
            return
        self._store.check_writes()  # a full server is why workers can do nothing
        verb = "begins" if self._view.state is CrawlState.QUEUED else "goes on"
        since = f" (for {now - self._alone_since:.0f} s now)" if self._alone_said else ""
        live = [w for w in self._presence.workers() if w.liveness is not Liveness.GONE]
        if not live:
            self._alone_said = now
            self._say(
                logging.WARNING,
                f"no worker serves {self._store.address}{since}: start one with "
                f"`vscrapy worker URL`; the crawl {verb} when one comes",
            )
        elif env and not any(worker.record.env == env for worker in live):
            self._alone_said = now
            self._say(
                logging.WARNING,
                f"none of the {len(live)} workers has the packages of this environment{since}: "
                f"the crawl {verb} when one comes",
            )

    def _lose(self, why: str) -> None:
        self._quiet_since = time.monotonic() - 2 * QUIET_S
        if self._view.state in FINAL_STATES:
            return
        now_ms = int(time.time() * 1000)
        self._view = msgspec.structs.replace(
            self._view, state=CrawlState.LOST, why=why, ended_ms=now_ms
        )
        self._listener.view(self._view)

    def _tell_problem(self, exc: VscrapyError | None) -> None:
        """Show what is wrong once, and once that it is right again; None: nothing is wrong."""
        kind = None if exc is None else type(exc)
        if kind is self._problem:
            self._answered = self._answered if kind else time.monotonic()
            return  # its words may change: a connection that broke is one that is refused next
        before, self._problem = self._problem, kind
        if exc is not None:
            self._say(logging.WARNING, str(exc))
            return
        after = f"after {time.monotonic() - self._answered:.0f} s"
        if before is SpoolFullError:
            self._say(logging.INFO, f"there is room for items again, {after}")
        elif before is not StoreRolledBackError:
            self._say(logging.INFO, f"the server answers again, {after}")

    def _say(self, level: int, text: str) -> None:
        """A line of the sender's own."""
        self._listener.lines([sender_line(level, text)])


def sender_line(level: int, text: str) -> LogLine:
    """A line that the sender itself says, now."""
    return LogLine(int(time.time() * 1000), level, SENDER, text, SENDER, SENDER)
