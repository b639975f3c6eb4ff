"""Owns what a child says to its supervisor: log records, phases and answers, as frames on a pipe.

Used by every thread of a child; a frame goes out in one piece. Without a pipe (a child that was
started by hand) records go to stderr as Scrapy prints them.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Final

from vscrapy_magic.store.pipes import FromChild, Phase, Report, frame

TEXT_CHARS: Final = 200_000  # of one record; more is cut, and says so
_CUT: Final = " ... (cut)"


class Reporter:
    """The write end of the report pipe; thread-safe, never raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.current_phase = Phase.STARTING

    @property
    def connected(self) -> bool:
        return self._fd >= 0

    def send(self, message: FromChild) -> None:
        """Write one frame; a supervisor that is gone is noticed elsewhere."""
        if self._fd < 0:
            return
        data = memoryview(frame(message))
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self._fd = -1

    def phase(self, name: str) -> None:
        """Say what the child does from now on: a word of `Phase`."""
        self.current_phase = Phase(name)
        number, time_ms = os.getpid(), _now_ms()
        self.send(FromChild(Report.PHASE, text=self.current_phase, number=number, time_ms=time_ms))

    def limits(self, level: int, *, hang_s: float, close_s: float) -> None:
        """Say what the spider's settings allow, and the level of lines that it wants to see."""
        self.send(FromChild(Report.LIMITS, level=level, hang_s=hang_s, close_s=close_s))

    def mask(self, values: Iterable[str]) -> None:
        """Say which values no line may show, before anything that knows them runs."""
        for value in values:
            self.send(FromChild(Report.MASK, text=value))

    def stack(self, place: str, text: str) -> None:
        """Say where the main thread is."""
        self.send(FromChild(Report.STACK, text=text, logger=place, time_ms=_now_ms()))

    def fatal(self, text: str) -> None:
        """Say why the crawl cannot run here at all."""
        self.send(FromChild(Report.FATAL, text=text[-TEXT_CHARS:], time_ms=_now_ms()))

    def pong(self, number: int) -> None:
        self.send(FromChild(Report.PONG, number=number, time_ms=_now_ms()))


class PipeHandler(logging.Handler):
    """Sends log records to the supervisor."""

    def __init__(self, reporter: Reporter, level: int | str) -> None:
        super().__init__(level)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - as `logging` itself: a bad record must not end the crawl
            self.handleError(record)
            return
        if len(text) > TEXT_CHARS:
            text = text[:TEXT_CHARS] + _CUT
        self._reporter.send(
            FromChild(
                Report.LOG,
                text=text,
                level=record.levelno,
                logger=record.name,
                time_ms=int(record.created * 1000),
            )
        )


def _now_ms() -> int:
    return int(time.time() * 1000)
