"""Owns how a crawl looks in a terminal: log lines with their worker, and what happens to it.

Runs in the process of a command. `lines` and `view` are called from the thread that follows the
crawl, `say` from any.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any, Final, TextIO

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.follow import SENDER
from vscrapy_magic.sender.lines import RAW_SOURCES, clean_lines
from vscrapy_magic.sender.options import MASK
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

# Scrapy's own defaults.
FORMAT: Final = "%(asctime)s [%(name)s] %(levelname)s: %(message)s"
DATE_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_SECRET_CHARS_MIN: Final = 4  # shorter values would mask half of every line


class LineFormat:
    """Writes log lines as Scrapy does, each after the name of its worker.

    Args:
        secrets: values that are not shown.
    """

    def __init__(
        self, form: str = FORMAT, dates: str = DATE_FORMAT, secrets: Sequence[str] = ()
    ) -> None:
        self._format = logging.Formatter(form, dates)
        self._default = logging.Formatter(FORMAT, DATE_FORMAT)
        self._secrets = [value for value in secrets if len(value) >= _SECRET_CHARS_MIN]

    def text(self, line: LogLine) -> str:
        """The line as it is shown; a line break for every one in it."""
        shown = line.text if line.source in RAW_SOURCES else self._formatted(line)
        if line.dropped:
            shown = f"... {line.dropped} lines were too many and are not kept\n{shown}"
        for value in self._secrets:
            shown = shown.replace(value, MASK)
        worker = " ".join(clean_lines(line.worker))
        return "".join(f"{worker} {each}\n" for each in clean_lines(shown))

    def _formatted(self, line: LogLine) -> str:
        record = logging.makeLogRecord(
            {
                "name": line.logger,
                "levelno": line.level,
                "levelname": logging.getLevelName(line.level),
                "msg": line.text,
                "created": line.time_ms / 1000,
                "msecs": line.time_ms % 1000,
            }
        )
        try:
            return self._format.format(record)
        except (KeyError, ValueError, TypeError):
            # LOG_FORMAT names a field that only the worker's own records had.
            return self._default.format(record)


class Terminal:
    """Shows one crawl; a listener of it.

    Args:
        form: how lines look.
        log: where lines go; None for nowhere.
        quiet: whether only problems are said.
    """

    def __init__(self, form: LineFormat, log: TextIO | None, *, quiet: bool = False) -> None:
        self._form = form
        self._log = log
        self._quiet = quiet
        self._lock = threading.Lock()
        self._waits = ""
        self._waits_since = 0.0

    def lines(self, lines: Sequence[LogLine]) -> None:
        if self._log is not sys.stderr:
            self._say_problems(lines)
        if self._log is None:
            return
        text = "".join(map(self._form.text, lines))
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._log.write(text)
            self._log.flush()

    def _say_problems(self, lines: Sequence[LogLine]) -> None:
        """Say what is wrong here to somebody who does not see the log."""
        for line in lines:
            if line.source == SENDER:
                (self.say if line.level >= logging.WARNING else self.note)(line.text)

    def view(self, view: CrawlView) -> None:
        waits = view.why if view.state in {CrawlState.WAITING, CrawlState.QUEUED} else ""
        now = time.monotonic()
        if waits and waits != self._waits:
            self.note(f"crawl {view.crawl_id} waits: {waits}")
            self._waits_since = now
        elif self._waits and not waits and not view.over:
            waited_s = now - self._waits_since
            self.note(f"crawl {view.crawl_id} goes on, after {waited_s:.0f} s")
        self._waits = waits

    def ended(self, view: CrawlView) -> None:
        """Nothing: the command shows the end when the feeds are written."""

    def note(self, text: str) -> None:
        """Say something to the user, unless they want no log."""
        if not self._quiet:
            self.say(text)

    def say(self, text: str) -> None:
        """Say something to the user in any case."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            sys.stderr.write(f"vscrapy: {text}\n")
            sys.stderr.flush()

    def dump_stats(self, stats: Mapping[str, Any], time_ms: int) -> None:
        """The stats of the whole crawl, as Scrapy shows those of a process."""
        text = f"Dumping Scrapy stats:\n{pformat(dict(stats))}"
        self.lines([LogLine(time_ms, logging.INFO, "scrapy.statscollectors", text, SENDER)])


@contextlib.contextmanager
def log_file(path: str, *, append: bool, encoding: str) -> Iterator[TextIO]:
    """The open file that takes the log; standard error when there is no path.

    Raises:
        ConfigError: it cannot be written.
    """
    if not path:
        yield sys.stderr
        return
    try:
        file = Path(path).open("a" if append else "w", encoding=encoding)  # noqa: SIM115
    except (OSError, LookupError) as exc:
        raise ConfigError(f"the log file {path} cannot be written: {exc}") from exc
    with file:
        yield file
