"""Owns how a sender that waits for its crawl takes interrupts: counted, and never raised.

Runs in the main thread of the sender's process; elsewhere it does nothing.
"""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupts:
    """Counts signals instead of raising, for as long as it is entered.

    Args:
        numbers: of the signals that count.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.count = 0
        is_main = threading.current_thread() is threading.main_thread()
        self._numbers = numbers if is_main else ()
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._old = {each: signal.signal(each, self._interrupted) for each in self._numbers}
        return self

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
