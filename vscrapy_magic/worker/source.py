"""Owns what is asked of whatever children come from, and when it is tried again.

Used by the supervisor's loop only. `zygote.py` and `spares.py` are the two sources that there are.
"""

import contextlib
import logging
import site
import sys
from pathlib import Path
from typing import Final, Protocol

import msgspec

from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.worker.process import Pipes, Process

logger = logging.getLogger(__name__)

RESTART_AFTER_S: Final = 1.0  # before what died young is replaced; doubles while it never got ready
RESTART_MAX_S: Final = 30.0


class Birth(msgspec.Struct, frozen=True):
    """A child that was started, or will be at once."""

    process: Process
    pipes: Pipes


class Source(Protocol):
    """Where children come from."""

    @property
    def ready(self) -> bool:
        """Whether a child would begin at once: what it needs has been imported."""

    @property
    def problem(self) -> str:
        """Why no child can be started, in one line; empty when one can, or will soon."""

    def sockets(self) -> list[int]:
        """Descriptors to be watched; `heard` when one has something to read."""

    def heard(self, fd: int) -> None:
        """Read what came."""

    def start(self, order: ChildOrder) -> Birth:
        """A new child, also while not ready: then it begins later."""

    def tend(self, now: float) -> None:
        """Replace what is missing or out of date; called every second or two.

        What it closes was not among `sockets()` before, or keeps its number until what is new has
        one: who watches numbers must not take a new one for an old one.
        """

    def pids(self) -> list[int]:
        """Processes of its own."""

    def close(self) -> None:
        """End its processes, not the children. Idempotent."""


class Attempts:
    """Tries to get something ready to start children: said once, and tried again and again.

    Attributes:
        problem: why the last one failed; empty when it did not.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._failed = 0
        self._not_before = 0.0
        self._packages: tuple[int, ...] = ()
        self.problem = ""

    def may_begin(self, now: float) -> bool:
        """Whether it is time, or other packages are installed than those that failed."""
        is_mended = bool(self.problem) and self._packages != packages_changed_at()
        return now >= self._not_before or is_mended

    def rest(self, now: float) -> None:
        """Wait a little, because one that had been ready died young."""
        self._not_before = now + RESTART_AFTER_S

    def failed(self, reason: str, now: float) -> None:
        """One never got ready; the next comes later each time."""
        pause_s = min(RESTART_MAX_S, RESTART_AFTER_S * 2**self._failed)
        self._failed += 1
        self._not_before = now + pause_s
        self._packages = packages_changed_at()
        problem = f"{self._what} {reason}"
        level = logging.ERROR if problem != self.problem else logging.DEBUG
        logger.log(level, "No crawl is taken here: %s; it is tried again and again", problem)
        self.problem = problem

    def succeeded(self) -> None:
        if self._failed:
            logger.warning("Crawls are taken here: %s is ready", self._what)
        self._failed, self.problem = 0, ""


def packages_changed_at() -> tuple[int, ...]:
    """When packages were last installed or removed here; nanoseconds, one for each folder."""
    folders = {*site.getsitepackages(), site.getusersitepackages()}
    folders |= {path for path in sys.path if path.endswith("site-packages")}
    found = []
    for folder in sorted(folders):
        with contextlib.suppress(OSError):
            found.append(Path(folder).stat().st_mtime_ns)
    return tuple(found)
