"""Owns a crawl that a cell runs: shown, fed, waited for, stopped by an interrupt, summed up.

Runs in the kernel's main thread, which it blocks; lines and states come in the crawl's own thread.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from vscrapy_magic.errors import StoreError, VscrapyError
from vscrapy_magic.notebook.interrupts import CrawlFailedError, CrawlInterruptedError
from vscrapy_magic.notebook.keyboard import CellKeyboard
from vscrapy_magic.sender.account import describe
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.follow import Listener
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

AGAIN_S: Final = 1.0  # before a debugger that cannot be reached is tried again
TICK_S: Final = 0.1  # between two looks of a blocked cell
LEAVE_AFTER_S: Final = 3.5  # of an interrupt: children that hang are killed after 3 s, and then a
# child that still closes its spider is left to do so; the cell returns and says it


class Screen(Listener, Protocol):
    """Where a crawl is shown while its cell runs."""

    def show(self) -> None:
        """Appear below the cell."""

    def notice(self, text: str) -> None:
        """Say something about the crawl, above its lines."""

    def drain(self) -> None:
        """Called by the main thread ten times a second; may print."""

    def finish(self, crawl: Crawl) -> None:
        """Become what stays in the notebook."""


class Running:
    """A crawl that was started by a cell, and where it is shown.

    Args:
        blocking: whether the cell waits for it.
        interrupted: how often it was interrupted already.
    """

    def __init__(
        self, crawl: Crawl, screen: Screen, *, blocking: bool, interrupted: int = 0
    ) -> None:
        self.crawl: Final = crawl
        self.screen: Final = screen
        self._blocking = blocking
        self._interrupted = interrupted
        self._ended = threading.Event()

    def lines(self, lines: Sequence[LogLine]) -> None:
        """Not of interest; a listener must have it."""

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, _view: CrawlView) -> None:
        """Say what went wrong with the feeds; in the crawl's own thread."""
        for note in self.crawl.feed_notes:
            if note.bad:
                self.screen.notice(note.text)
        self._ended.set()
        if not self._blocking:
            self.screen.finish(self.crawl)

    def wait(self) -> None:
        """Block until the crawl is over; an interrupt stops it, a second one kills it.

        Raises:
            CrawlInterruptedError: it was stopped by an interrupt.
            CrawlFailedError: it has failed.
        """
        crawl, screen = self.crawl, self.screen
        asked, since = 0, 0.0
        with Interrupts(signal.SIGINT) as interrupts:
            while not self._ended.wait(TICK_S):
                screen.drain()
                if (count := self._interrupted + interrupts.count) > asked:
                    asked = count
                    since = since or time.monotonic()
                    _stop(crawl, screen, now=asked > 1)
                elif crawl.view.halts and not asked:
                    self._debug(interrupts)
                if since and time.monotonic() - since > LEAVE_AFTER_S:
                    self._blocking = False
                    break
            screen.drain()
            screen.finish(crawl)
        if asked:
            raise CrawlInterruptedError(_ending(crawl))
        if crawl.state not in {CrawlState.FINISHED, CrawlState.STOPPED}:
            raise CrawlFailedError(f"crawl {describe(crawl.view)}")

    def _debug(self, interrupts: Interrupts) -> None:
        """Let the user debug where a child stands; the others go on, and so does the panel."""
        try:
            self.crawl.attend(CellKeyboard(self.screen), interrupts)
        except StoreError as exc:
            self.screen.notice(str(exc))
            self._ended.wait(AGAIN_S)


class Early:
    """Listens to a crawl until there is a screen, and then for it; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._screen: Screen | None = None
        self._lines: list[LogLine] = []
        self._view: CrawlView | None = None
        self._end: CrawlView | None = None

    def lines(self, lines: Sequence[LogLine]) -> None:
        with self._lock:
            if self._screen is None:
                self._lines += lines
            else:
                self._screen.lines(lines)

    def view(self, view: CrawlView) -> None:
        with self._lock:
            if self._screen is None:
                self._view = view
            else:
                self._screen.view(view)

    def ended(self, view: CrawlView) -> None:
        with self._lock:
            if self._screen is None:
                self._end = view
            else:
                self._screen.ended(view)

    def hand_on(self, screen: Screen) -> None:
        """Let the screen hear what came, and what is to come."""
        with self._lock:
            self._screen = screen
            if self._view is not None:
                screen.view(self._view)
            if self._lines:
                screen.lines(self._lines)
            if self._end is not None:
                screen.ended(self._end)


def start(
    session: Session, order: Order, options: CrawlOptions, open_screen: Callable[[], Screen]
) -> Running:
    """Place a crawl and show it.

    The screen is made while the workers begin: a panel takes some milliseconds, and the first one
    of a kernel imports what widgets need.

    Raises:
        VscrapyError: it cannot be placed; nothing has started.
    """
    early = Early()
    crawl = session.place(order, detach=options.detach, listener=early)
    blocking = not (options.background or options.detach)
    try:
        with Interrupts(*[signal.SIGINT] * blocking) as interrupts:
            screen = open_screen()
            if order.shipped.pinned and options.workers is None:
                screen.notice(f"1 worker: {order.shipped.pinned} (--workers N overrides)")
            for note in order.notes:
                screen.notice(note)
            screen.show()
            early.hand_on(screen)
        running = Running(crawl, screen, blocking=blocking, interrupted=interrupts.count)
        crawl.listen(running)
    except BaseException:  # an interrupt, too: nobody would see the crawl, or wait for it
        with contextlib.suppress(VscrapyError):
            crawl.stop(now=True)
        raise
    return running


def _stop(crawl: Crawl, screen: Screen, *, now: bool) -> None:
    screen.notice(
        "killed" if now else "stopping: what is in flight is finished; interrupt again to kill"
    )
    try:
        crawl.stop(now=now)
    except StoreError as exc:
        screen.notice(str(exc))


def _ending(crawl: Crawl) -> str:
    if crawl.is_over:
        return f"crawl {describe(crawl.view)}"
    closing = ", ".join(crawl.workers) or "no worker"
    return (
        f"crawl {describe(crawl.view)}; the spider is still being closed on {closing} and has 10 s "
        "for it; what it brings is kept: %vlist shows it"
    )
