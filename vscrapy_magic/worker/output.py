"""Owns what comes out of children and of the worker itself: made into lines, sent in batches.

Used by the supervisor's loop only. Lines that the store cannot take yet wait in a bounded spool;
what had to be dropped is counted in the next line that is sent.
"""

import logging
import time
from collections import deque
from typing import Final

from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.keys import CrawlId, WorkerName
from vscrapy_magic.store.logs import LINES_PER_BATCH, LogLine, Logs
from vscrapy_magic.store.pipes import FromChild

FLUSH_S: Final = 0.1  # between two batches of a crawl
SPOOL_LINES: Final = 20_000  # a crawl; beyond it the oldest below ERROR go
SPOOL_ERRORS: Final = 2_000
LINE_CHARS: Final = 20_000  # of one plain line


class Output:
    """The log lines of one worker's part in one crawl."""

    def __init__(self, logs: Logs, crawl_id: CrawlId, worker: WorkerName) -> None:
        self._logs = logs
        self._crawl_id = crawl_id
        self._worker = worker
        self._lines: deque[LogLine] = deque()
        self._errors: deque[LogLine] = deque()
        self._dropped = 0
        self._partial: dict[str, bytes] = {}
        self._flushed = 0.0

    def record(self, report: FromChild) -> None:
        """A log record of the child."""
        self._add(report.time_ms, report.level, report.logger, report.text, "log")

    def raw(self, source: str, data: bytes) -> None:
        """Plain output of the child; empty bytes end its last line."""
        text = self._partial.pop(source, b"") + data
        *lines, rest = text.split(b"\n")
        if rest and (not data or len(rest) > LINE_CHARS):
            lines, rest = [*lines, rest], b""
        if rest:
            self._partial[source] = rest
        level = logging.INFO if source == "stdout" else logging.WARNING
        for line in lines:
            self._add(_now_ms(), level, source, line.decode(errors="replace")[:LINE_CHARS], source)

    def own(self, level: int, text: str) -> None:
        """A line of the worker itself."""
        self._add(_now_ms(), level, "worker", text, "worker")

    def _add(self, time_ms: int, level: int, logger: str, text: str, source: str) -> None:
        line = LogLine(time_ms, level, logger, text, self._worker, source)
        lines, bound = (
            (self._errors, SPOOL_ERRORS) if level >= logging.ERROR else (self._lines, SPOOL_LINES)
        )
        if len(lines) >= bound:
            lines.popleft()
            self._dropped += 1
        lines.append(line)

    def flush(self, *, force: bool = False) -> None:
        """Send what is due; keeps everything when the store does not take it."""
        now = time.monotonic()
        if not (self._lines or self._errors) or (now - self._flushed < FLUSH_S and not force):
            return
        self._flushed = now
        batch = sorted([*self._errors, *self._lines], key=lambda line: line.time_ms)
        if self._dropped:
            text = f"{self._dropped} lines were dropped here"
            batch.insert(
                0,
                LogLine(
                    *(batch[0].time_ms, logging.WARNING, "worker", text, self._worker, "worker"),
                    dropped=self._dropped,
                ),
            )
        try:
            for at in range(0, len(batch), 10 * LINES_PER_BATCH):
                self._logs.append(self._crawl_id, batch[at : at + 10 * LINES_PER_BATCH])
        except StoreError:
            return
        self._lines.clear()
        self._errors.clear()
        self._dropped = 0


def _now_ms() -> int:
    return int(time.time() * 1000)
