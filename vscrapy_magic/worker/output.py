"""Owns what comes out of a child and of its worker: made into lines, kept until they are sent.

Filled by the supervisor's loop, emptied by the thread that speaks with the store. Lines that the
store cannot take yet wait in a bounded spool. What had to be dropped is counted in the next line
that is sent. ERROR lines have a bound of their own; beyond it they are grouped by place (logger and
first line): of each group the first, the last and the number are kept.
"""

import logging
import threading
import time
from collections import deque
from typing import Final

import msgspec

from vscrapy_magic.store.keys import CrawlId, WorkerName
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.pipes import FromChild

SPOOL_LINES: Final = 20_000  # waiting lines of one child; beyond it the oldest below ERROR go
SPOOL_ERRORS: Final = 2_000
GROUPS_MAX: Final = 500  # groups of errors beyond the bound; later ones share one
LINE_CHARS: Final = 20_000  # of one plain line
MASK: Final = "***"
MASKED_CHARS_MIN: Final = 4  # shorter values are part of too much else
_OTHER: Final = ("", "other places")
_SOURCE: Final = "worker"


class _Group(msgspec.Struct):
    """Errors of one place beyond the bound; the first of them stands here, or before the bound."""

    first: tuple[int, LogLine]
    last: tuple[int, LogLine]
    count: int = 1


class Output:
    """The log lines of one child; thread-safe."""

    def __init__(self, crawl_id: CrawlId, worker: WorkerName, level: int = logging.DEBUG) -> None:
        self.crawl_id: Final = crawl_id
        self.worker: Final = worker
        self._level = level
        self._lock = threading.Lock()
        self._number = 0
        self._lines: deque[tuple[int, LogLine]] = deque()
        self._errors: deque[tuple[int, LogLine]] = deque()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._dropped = 0
        self._partial: dict[str, bytes] = {}
        self._masked: tuple[str, ...] = ()

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
        """A line of the worker itself; those below the spider's level are left out."""
        if level >= self._level:
            self._add(_now_ms(), level, _SOURCE, text, _SOURCE)

    def set_level(self, level: int) -> None:
        """The spider's settings say which lines it wants to see."""
        self._level = level

    def mask(self, value: str) -> None:
        """Show a value as `***` in all lines that are still to be sent; not a short one."""
        found = {line.strip() for line in value.splitlines()}
        secrets = {line for line in found if len(line) >= MASKED_CHARS_MIN}
        # One may be part of another.
        self._masked = tuple(sorted({*self._masked, *secrets}, key=len, reverse=True))

    @property
    def masked(self) -> tuple[str, ...]:
        """The values that are shown as `***`."""
        return self._masked

    def hide(self, text: str) -> str:
        """The text with what is masked as `***`."""
        for secret in self._masked:
            text = text.replace(secret, MASK)
        return text

    def _without_secrets(self, line: LogLine) -> LogLine:
        text = self.hide(line.text)
        return line if text == line.text else msgspec.structs.replace(line, text=text)

    def _add(self, time_ms: int, level: int, logger: str, text: str, source: str) -> None:
        line = LogLine(time_ms, level, logger, text, self.worker, source)
        with self._lock:
            self._number += 1
            if level >= logging.ERROR:
                self._add_error((self._number, line))
                return
            if len(self._lines) >= SPOOL_LINES:
                self._lines.popleft()
                self._dropped += 1
            self._lines.append((self._number, line))

    def _add_error(self, numbered: tuple[int, LogLine]) -> None:
        if len(self._errors) < SPOOL_ERRORS:
            self._errors.append(numbered)
            return
        place = _place(numbered[1])
        if place not in self._groups and len(self._groups) >= GROUPS_MAX:
            place = _OTHER
        group = self._groups.get(place)
        if group is None:
            self._groups[place] = _Group(numbered, numbered)
        else:
            group.last = numbered
            group.count += 1

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._lines or self._errors)

    def take(self) -> list[LogLine]:
        """All lines that wait, in order, and a line for what was dropped among them."""
        with self._lock:
            numbered = [*self._lines, *self._errors]
            for (logger, first_line), group in self._groups.items():
                numbered.append(group.first)
                if group.count > 1:
                    numbered.append(group.last)
                if group.count > 2:
                    text = f"{group.count - 2} more like this: [{logger}] {first_line}"
                    line = self._counting(group.last[1].time_ms, group.count - 2, text)
                    numbered.append((group.last[0], line))
            numbered.sort(key=lambda pair: pair[0])
            lines = [line for _, line in numbered]
            if self._dropped:
                text = f"{self._dropped} lines were dropped here"
                at_ms = lines[0].time_ms if lines else _now_ms()
                lines.insert(0, self._counting(at_ms, self._dropped, text))
            self._lines.clear()
            self._errors.clear()
            self._groups.clear()
            self._dropped = 0
        return list(map(self._without_secrets, lines)) if self._masked else lines

    def keep(self, taken: list[LogLine]) -> None:
        """Take back lines that the store did not take; they go before those that came since."""
        with self._lock:
            later = [*self._lines, *self._errors]
            later.sort(key=lambda pair: pair[0])
            first = later[0][0] if later else self._number + 1
            old = list(enumerate(taken, first - len(taken)))
            below = [pair for pair in old if pair[1].level < logging.ERROR]
            room = max(0, SPOOL_LINES - len(self._lines))
            over = max(0, len(below) - room)
            self._dropped += sum(max(1, line.dropped) for _, line in below[:over])
            self._lines.extendleft(reversed(below[over:]))
            errors = [pair for pair in old if pair[1].level >= logging.ERROR]
            newer = list(self._errors)
            self._errors.clear()
            for pair in [*errors, *newer]:
                self._add_error(pair)

    def _counting(self, time_ms: int, count: int, text: str) -> LogLine:
        return LogLine(time_ms, logging.WARNING, _SOURCE, text, self.worker, _SOURCE, count)


def _place(line: LogLine) -> tuple[str, str]:
    return line.logger, line.text.partition("\n")[0][:LINE_CHARS]


def _now_ms() -> int:
    return int(time.time() * 1000)
