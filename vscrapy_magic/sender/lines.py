"""Owns how a log line is written where the lines of several workers meet; runs in senders.

What a worker sends is foreign text: control characters and terminal sequences are taken out of it,
so that a page which a spider has logged can neither clear a terminal nor colour it.
"""

import logging
import re
import time
from typing import Final

from vscrapy_magic.store.logs import LogLine

RAW_SOURCES: Final = frozenset({"stdout", "stderr"})  # plain output: it has no logger and no level
_SEQUENCES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor moves
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # window titles, links
    r"|\x1b."
)
# Control characters but tab and line breaks, and those that turn the writing direction around.
_CONTROLS: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]"
)


def clean_lines(text: str) -> list[str]:
    """The lines of a foreign text, at least one, without what a terminal would act upon."""
    if "\x1b" in text:
        text = _SEQUENCES.sub("", text)
    return [_CONTROLS.sub("", line) for line in text.splitlines()] or [""]


def line_rows(line: LogLine) -> list[str]:
    """The line as shown where its worker is known: `12:00:01 [logger] LEVEL: text`."""
    first, *rest = clean_lines(line.text)
    return [f"{_head(line)}{first}", *rest]


def format_line(line: LogLine) -> str:
    """The line after the name of its worker: `worker 12:00:01 [logger] LEVEL: text`.

    Returns:
        As many lines as the text has, each with the worker in front, without a last line break.
    """
    return "\n".join(f"{_clean(line.worker)} {row}" for row in line_rows(line))


def _head(line: LogLine) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line.time_ms / 1000))
    if line.source in RAW_SOURCES:
        return f"{clock} "
    return f"{clock} [{_clean(line.logger)}] {logging.getLevelName(line.level)}: "


def _clean(name: str) -> str:
    return " ".join(clean_lines(name))
