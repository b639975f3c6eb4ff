"""Owns a crawl that a cell runs: shown, fed, waited for, stopped by an interrupt, summed up.

Runs in the kernel's main thread, which it blocks; lines and states come in the crawl's own thread.
"""

import signal
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from vscrapy_magic.errors import StoreError
from vscrapy_magic.notebook.interrupts import CrawlFailedError, CrawlInterruptedError
from vscrapy_magic.sender.crawl import Crawl, describe
from vscrapy_magic.sender.feeds import ClassFeeds
from vscrapy_magic.sender.follow import Listener
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.crawls import CrawlView
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState

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
    """A crawl that was started by a cell, and where it is shown."""

    def __init__(self, crawl: Crawl, screen: Screen, feeds: ClassFeeds, *, blocking: bool) -> None:
        self.crawl: Final = crawl
        self.screen: Final = screen
        self._feeds = feeds
        self._blocking = blocking
        self._written = threading.Event()

    def lines(self, lines: Sequence[LogLine]) -> None:
        """Not of interest; a listener must have it."""

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, _view: CrawlView) -> None:
        """Finish the feeds; in the crawl's own thread."""
        problem = self._feeds.close()
        if problem:
            self.screen.notice(problem)
        self._written.set()
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
            while not self._written.wait(TICK_S):
                screen.drain()
                if interrupts.count > asked:
                    asked = interrupts.count
                    since = since or time.monotonic()
                    _stop(crawl, screen, now=asked > 1)
                if since and time.monotonic() - since > LEAVE_AFTER_S:
                    self._blocking = False
                    break
            screen.drain()
            screen.finish(crawl)
        if asked:
            raise CrawlInterruptedError(_ending(crawl))
        if crawl.state not in {CrawlState.FINISHED, CrawlState.STOPPED}:
            raise CrawlFailedError(f"crawl {describe(crawl.view)}")


def start(session: Session, order: Order, options: CrawlOptions, screen: Screen) -> Running:
    """Place a crawl and show it.

    Raises:
        VscrapyError: it cannot be placed; nothing has started.
    """
    feeds = ClassFeeds(options, order)
    try:
        crawl = session.place(order, detach=options.detach, deliver=feeds.deliver)
    except BaseException:
        feeds.close()
        raise
    if order.shipped.pinned and options.workers is None:
        screen.notice(f"1 worker: {order.shipped.pinned} (--workers N overrides)")
    for note in order.notes:
        screen.notice(note)
    screen.show()
    blocking = not (options.background or options.detach)
    running = Running(crawl, screen, feeds, blocking=blocking)
    crawl.listen(screen)
    crawl.listen(running)
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
