"""Owns how a crawl is shown without widgets: prefixed lines, in a terminal or as plain output.

Runs in the kernel. Lines come in the crawl's own thread and wait; only `drain`, which the main
thread calls, prints: what a thread prints lands in whatever cell ran last, or nowhere.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, TextIO

from vscrapy_magic.notebook.progress import count, notices
from vscrapy_magic.notebook.summary import summary_text
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.lines import clean_lines, format_line
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView

WAITING_MAX: Final = 5000  # lines that wait to be printed; beyond it the oldest go
ERRORS_MAX: Final = 500  # the same for those of ERROR and above, which wait apart
NOTEBOOK_S: Final = 0.5  # between two writes in a notebook: each costs its page a layout
NOTEBOOK_LINES: Final = 100  # in one of them; a page that gets 2,000 lines/s never recovers


class PlainSink:
    """Shows one crawl as lines of text; a listener of it.

    Args:
        out: where lines go; `sys.stdout` as it is when the cell runs.
        is_notebook: whether a page shows them, which bears few only.
    """

    def __init__(self, out: TextIO, *, is_notebook: bool) -> None:
        self._out = out
        self._is_notebook = is_notebook
        self._lock = threading.Lock()
        self._number = 0
        self._lines: deque[tuple[int, LogLine]] = deque()
        self._errors: deque[tuple[int, LogLine]] = deque()
        self._notes: deque[str] = deque(maxlen=ERRORS_MAX)
        self._said: set[str] = set()
        self._left_out = 0
        self._written_s = 0.0

    def lines(self, lines: Sequence[LogLine]) -> None:
        with self._lock:
            for line in lines:
                self._number += 1
                is_error = line.level >= logging.ERROR
                waiting = self._errors if is_error else self._lines
                waiting.append((self._number, line))
                if len(waiting) > (ERRORS_MAX if is_error else WAITING_MAX):
                    waiting.popleft()
                    self._left_out += 1

    def view(self, view: CrawlView) -> None:
        for text in notices(view):
            self.notice(text)

    def ended(self, view: CrawlView) -> None:
        """Nothing: `finish` says it, when the cell is there to print it."""

    def show(self) -> None:
        """Nothing: the first line shows it."""

    def notice(self, text: str) -> None:
        """Say something about the crawl, once."""
        with self._lock:
            if text not in self._said and len(self._said) < ERRORS_MAX:
                self._said.add(text)
                self._notes.append(text)

    def drain(self) -> None:
        """Print what has come; only in the main thread."""
        if self._is_notebook and time.monotonic() - self._written_s < NOTEBOOK_S:
            return
        self._write()

    def finish(self, crawl: Crawl) -> None:
        """Print the rest and how the crawl ended; only in the main thread."""
        self._write()
        self._out.write(f"{summary_text(crawl.view, crawl.failures.groups())}\n")
        self._out.flush()

    def _write(self) -> None:
        with self._lock:
            notes, left_out = list(self._notes), self._left_out
            found = [*self._lines, *self._errors]
            self._notes.clear()
            self._lines.clear()
            self._errors.clear()
            self._left_out = 0
        if self._is_notebook and len(found) > NOTEBOOK_LINES:
            left_out += len(found) - NOTEBOOK_LINES
            found.sort(key=lambda pair: (pair[1].level >= logging.ERROR, pair[0]))
            found = found[-NOTEBOOK_LINES:]
        found.sort(key=lambda pair: pair[0])
        text = [f"vscrapy: {' '.join(clean_lines(note))}" for note in notes]
        if left_out:
            text.append(f"... {count(left_out, 'line')} not shown: %vlogs has them")
        text += [format_line(line) for _, line in found]
        if text:
            self._out.write("\n".join(text) + "\n")
            self._out.flush()
            self._written_s = time.monotonic()
