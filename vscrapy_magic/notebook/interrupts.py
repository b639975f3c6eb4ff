"""Owns what an interrupt does while a crawl's cell blocks, and how its end is shown.

Runs in the kernel's main thread. The first interrupt stops the crawl, the second kills it; neither
raises where the cell waits, so that what came in is kept and shown. Afterwards the cell ends with
`CrawlInterruptedError`: an interrupt that is swallowed would let "Run All" go on.
"""

import signal
import threading
from types import FrameType
from typing import Any, Self


class CrawlInterruptedError(KeyboardInterrupt):
    """The user has stopped the crawl of this cell; shown as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class CrawlFailedError(Exception):
    """The crawl of this cell has failed; shown as one line, the panel says more."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class UsageError(Exception):
    """A magic was used wrongly, or cannot do what was asked; shown as one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Interrupts:
    """Counts interrupts instead of raising them, while it is entered; only in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._old: Any = None
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._is_main:
            self._old = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._old)
