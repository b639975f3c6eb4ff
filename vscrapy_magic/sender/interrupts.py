"""Owns how a sender that waits for its crawl takes interrupts: counted, and never raised.

Runs in the main thread of the sender's process; elsewhere it does nothing.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Counts signals instead of raising, for as long as it is entered.

    Args:
        numbers: of the signals that count.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.count = 0  # whoever catches one that was raised adds it
        is_main = threading.current_thread() is threading.main_thread()
        self._numbers = numbers if is_main else ()
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._old = {each: signal.signal(each, self._interrupted) for each in self._numbers}
        return self

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Let an interrupt raise, because only that ends an `input()`."""
        if signal.SIGINT not in self._numbers:
            yield
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
