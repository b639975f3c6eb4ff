"""Owns how a sender follows its crawl: a thread that collects outputs and log lines to the end.

Runs in the sender's process, one thread a crawl. Outputs go to the spool, then to whoever writes
feeds, and are acknowledged after that; log lines and the crawl's state go to listeners.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from vscrapy_magic.errors import (
    CrawlNotFoundError,
    StoreError,
    StoreRolledBackError,
    StoreUnreachableError,
)
from vscrapy_magic.sender.spool import Spool, SpoolFullError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import FINAL_STATES, Crawls, CrawlView, Mover
from vscrapy_magic.store.files import Files
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.outputs import Doorbell, Output, Outputs, Witness
from vscrapy_magic.store.presence import Liveness, Presence

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25  # between two looks at a crawl that brings nothing
LOOK_MAX_S: Final = 1.0  # the same, when nothing has changed for a while
UNCHANGED_S: Final = 5.0  # that while
GATHER_MIN_S: Final = 0.01  # after something came, before more is asked for; doubles while it does
GATHER_MAX_S: Final = 0.1  # so that a fast crawl costs ten rounds a second, and a first item none
LOOK_BUSY_S: Final = 0.1  # between two looks at one that brings much
RETRY_S: Final = 1.0  # before a server that is away, or a full disk, is tried again
ALONE_S: Final = 1.5  # without a worker: then it is said that there is none
FILES_WITHIN_S: Final = 10.0  # of the end: a worker that died with its files sends none any more
QUIET_S: Final = 0.5  # without a line after the end: then the last line has come
_ALONE_AGAIN_S: Final = 60.0
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
        collect: whether this process takes the outputs; otherwise its own sender does.
        deliver: gets the outputs that were new, before they are acknowledged.
        pulse: called a few times a second.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        view: CrawlView,
        listener: Listener,
        *,
        collect: bool = True,
        deliver: Callable[[Sequence[Output]], None] = lambda _: None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._spool = spool
        self._view = view
        self._listener = listener
        self._collect = collect
        self._deliver = deliver
        self._pulse = pulse
        self._crawls = Crawls(store)
        self._outputs = Outputs(store, view.crawl_id)
        self._logs = Logs(store)
        self._unacked: Output | None = None
        self._log_after = "0-0"
        self._presence = Presence(store)
        self._looked = 0.0
        self._changed = time.monotonic()
        self._gather_s = GATHER_MIN_S
        self._alone_since = 0.0
        self._quiet_since = 0.0
        self._over_since = 0.0
        self._files = Files(store, view.crawl_id)
        self._files_coming = False
        self._problem = ""
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
        if not self._stop.is_set():
            self._listener.ended(self._view)

    def _is_done(self) -> bool:
        """Whether the crawl is over and nothing has come for a while."""
        if self._view.state not in FINAL_STATES or not self._quiet_since:
            return False  # the second: it was over before, and nothing has been asked yet
        if self._files_coming and time.monotonic() - self._over_since < FILES_WITHIN_S:
            return False
        return time.monotonic() - self._quiet_since > QUIET_S

    def _turn(self, bell: Doorbell) -> None:
        try:
            came = self._take_outputs() | self._take_lines() | self._take_files()
            now = time.monotonic()
            self._quiet_since = now if came or not self._quiet_since else self._quiet_since
            if now - self._looked >= (LOOK_BUSY_S if came else 0):
                self._looked = now
                self._pulse()
                self._look()
            if came:
                self._stop.wait(self._gather_s)
                self._gather_s = min(GATHER_MAX_S, 2 * self._gather_s)
            else:
                self._gather_s = GATHER_MIN_S
                with self._store.errors_wrapped():
                    bell.wait(self._after, self._log_after, self._wait_s())
            self._tell_problem("")
        except StoreRolledBackError as exc:
            self._tell_problem(str(exc))
            self._crawls.move(self._view.crawl_id, CrawlState.STORE_ROLLED_BACK, Mover.SENDER)
            self._collect = False
        except CrawlNotFoundError:
            self._lose(f"the server at {self._store.address} does not know it any more")
        except (StoreUnreachableError, SpoolFullError) as exc:
            self._tell_problem(str(exc))
            self._stop.wait(RETRY_S)
        except StoreError as exc:
            if self._stop.is_set():
                return
            self._tell_problem(str(exc))
            self._stop.wait(RETRY_S)

    def _wait_s(self) -> float:
        if self._view.state in FINAL_STATES:
            return LOOK_BUSY_S
        return LOOK_S if time.monotonic() - self._changed < UNCHANGED_S else LOOK_MAX_S

    @property
    def _after(self) -> Witness | None:
        return self._spool.last

    def _take_outputs(self) -> bool:
        if not self._collect:
            return False
        outputs = self._outputs.read(self._after)
        if outputs:
            kept = self._spool.keep(outputs)
            self._unacked = outputs[-1]  # until the server has heard of it, though it goes away
            self._deliver(kept)
        if self._unacked is not None:
            self._outputs.ack(self._unacked)
            self._unacked = None
        return bool(outputs)

    def _take_lines(self) -> bool:
        lines, self._log_after = self._logs.read(self._view.crawl_id, self._log_after)
        if not lines:
            return False
        if self._spool.collects:
            self._spool.keep_lines(lines)
        self._listener.lines(lines)
        return True

    def _take_files(self) -> bool:
        """Files that the spider wrote; they are asked for when the crawl is over."""
        if not self._collect or self._view.state not in FINAL_STATES:
            return False
        self._over_since = self._over_since or time.monotonic()
        came, coming = self._spool.files.collect(self._files)
        self._files_coming = bool(coming)
        return came

    def _look(self) -> None:
        before, self._view = self._view, self._crawls.view(self._view.crawl_id)
        if self._view.state in FINAL_STATES and before.state not in FINAL_STATES:
            self._quiet_since = time.monotonic()
        if self._view != before:
            self._changed = time.monotonic()
            self._listener.view(self._view)
        self._see_workers()

    def _see_workers(self) -> None:
        """Say it when a crawl waits because nobody is there to work on it."""
        now = time.monotonic()
        if self._view.members or self._view.state not in _WAITING_FOR_WORKERS:
            self._alone_since = 0.0
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since < ALONE_S:
            return
        self._store.check_writes()  # a full server is why workers can do nothing
        self._alone_since = now + _ALONE_AGAIN_S  # not again for a while
        env = self._view.spec.env
        live = [w for w in self._presence.workers() if w.liveness is not Liveness.GONE]
        if not live:
            self._say(
                logging.WARNING,
                f"no worker serves {self._store.address}: start one with `vscrapy worker URL`; "
                "the crawl begins when one comes",
            )
        elif env and not any(worker.record.env == env for worker in live):
            self._say(
                logging.WARNING,
                f"none of the {len(live)} workers has the packages of this environment: "
                "the crawl begins when one comes",
            )

    def _lose(self, why: str) -> None:
        self._quiet_since = time.monotonic() - 2 * QUIET_S
        if self._view.state in FINAL_STATES:
            return
        self._view = msgspec.structs.replace(self._view, state=CrawlState.LOST, why=why)
        self._listener.view(self._view)

    def _tell_problem(self, text: str) -> None:
        """Show what is wrong once, and once that it is right again."""
        if text == self._problem:
            return
        self._problem = text
        if text:
            self._say(logging.WARNING, text)
        else:
            self._say(logging.INFO, "the server answers again")

    def _say(self, level: int, text: str) -> None:
        """A line of the sender's own."""
        line = LogLine(int(time.time() * 1000), level, "sender", text, SENDER, "sender")
        self._listener.lines([line])
