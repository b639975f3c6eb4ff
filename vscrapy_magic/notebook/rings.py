"""Owns the last rows of each worker, as the panel shows them; runs in the kernel, any one thread.

A row is one line of text with a mark before it: the first letter of its level, in lower case when
it goes on with the line above (the rows of a traceback are one line). Rows are numbered from 1, so
that whoever misses some knows how many.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from vscrapy_magic.sender.lines import line_rows
from vscrapy_magic.store.logs import LogLine

ROWS_MAX: Final = 5000  # of one worker; as in panel.js
CHARS_MAX: Final = 2_000_000  # of one worker's rows: a few very long ones must not fill the memory
ERRORS_MAX: Final = 500  # rows of errors kept when newer rows push them out; as in panel.js
ROW_CHARS_MAX: Final = 4000  # of one row; the rest is counted in it
ERROR_MARKS: Final = "ECec"


class Run(NamedTuple):
    """Rows with consecutive numbers: that of the first, and all of them, a line break between."""

    first: int
    rows: str


class Row(NamedTuple):
    """One row; `text` begins with its mark."""

    number: int
    text: str


class Kept(NamedTuple):
    """What is kept of one worker: its last rows, and how many lines there were in all."""

    rows: list[Row]
    lines: int
    errors: int
    dropped: int


class Ring:
    """The last rows of one worker; not thread-safe.

    Attributes:
        lines: log lines so far.
        errors: those of level ERROR and above.
        dropped: lines that the worker, or its sender, had to drop before they came here.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.errors = 0
        self.dropped = 0
        self._rows: deque[Row] = deque()
        self._chars = 0
        self._errors: deque[Row] = deque(maxlen=ERRORS_MAX)
        self._next = 1
        self._sent = 0

    def add(self, line: LogLine) -> None:
        """Append a line; the oldest rows go, those of errors into a bound of their own."""
        if line.dropped:
            self.dropped += line.dropped
        else:
            self.lines += 1
        if line.level >= logging.ERROR:
            self.errors += 1
        mark = _mark(line.level)
        for text in line_rows(line):
            self._append(mark + _bounded(text))
            mark = mark.lower()

    def _append(self, text: str) -> None:
        self._rows.append(Row(self._next, text))
        self._next += 1
        self._chars += len(text)
        while len(self._rows) > ROWS_MAX or self._chars > CHARS_MAX:
            old = self._rows.popleft()
            self._chars -= len(old.text)
            if old.text[0] in ERROR_MARKS:
                self._errors.append(old)

    def kept(self) -> Kept:
        """All rows that are kept, in order, and the counts."""
        return Kept([*self._errors, *self._rows], self.lines, self.errors, self.dropped)

    def take(self, chars_max: int) -> list[Run]:
        """Rows that were not taken before: the newest that fit into `chars_max` characters."""
        new: list[Row] = []
        for part in (self._rows, self._errors):
            for row in reversed(part):
                chars_max -= len(row.text)
                if row.number <= self._sent or chars_max < 0:
                    break
                new.append(row)
        self._sent = self._next - 1
        return runs(reversed(new))

    def take_all(self, chars_max: int) -> list[Run]:
        """The same for all rows, taken before or not."""
        self._sent = 0
        return self.take(chars_max)


def runs(rows: Iterable[Row]) -> list[Run]:
    """Rows, in order, as few runs."""
    found: list[tuple[int, list[str]]] = []
    after = 0
    for row in rows:
        if not found or row.number != after:
            found.append((row.number, []))
        found[-1][1].append(row.text)
        after = row.number + 1
    return [Run(first, "\n".join(texts)) for first, texts in found]


def _mark(level: int) -> str:
    for letter, lowest in (("C", logging.CRITICAL), ("E", logging.ERROR), ("W", logging.WARNING)):
        if level >= lowest:
            return letter
    return "I" if level >= logging.INFO else "D"


def _bounded(text: str) -> str:
    if len(text) <= ROW_CHARS_MAX:
        return text
    return f"{text[:ROW_CHARS_MAX]} ... {len(text) - ROW_CHARS_MAX} characters more"
