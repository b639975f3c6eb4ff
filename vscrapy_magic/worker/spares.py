"""Owns children that were started by command line before they are needed: where forks would crash.

Used by the supervisor's loop only. A spare imports what every crawl needs, says so on its report
pipe, and waits for its order. The first one that is warm shows that children can be started; from
then on a crawl that finds no spare starts a child of its own, which takes no longer than a new
spare would.
"""

import os
import time
from typing import Final

from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.worker.process import StartedProcess
from vscrapy_magic.worker.source import Attempts, Birth, packages_changed_at

_REPORT_BYTES: Final = 64 * 1024  # all that a spare says is that it is warm
_LAST_WORDS_BYTES: Final = 64 * 1024


class Spares:
    """Children that wait for their orders.

    Args:
        count: how many to keep.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._packages = packages_changed_at()
        self._spares: list[StartedProcess] = []
        self._warm: set[int] = set()
        self._attempts = Attempts("a spare child")
        self.ready = False
        self.tend(time.monotonic())

    @property
    def problem(self) -> str:
        return self._attempts.problem

    def sockets(self) -> list[int]:
        return [spare.pipes.report for spare in self._spares if spare.pid not in self._warm]

    def heard(self, fd: int) -> None:
        spare = next(spare for spare in self._spares if spare.pipes.report == fd)
        if os.read(fd, _REPORT_BYTES):
            self._warm.add(spare.pid)
            self.ready = True
            self._attempts.succeeded()
        else:
            self.ready = False
            self._attempts.failed(_end_of(spare), time.monotonic())
            self._drop(spare)

    def start(self, order: ChildOrder) -> Birth:
        self.tend(time.monotonic())
        warm = [spare for spare in self._spares if spare.pid in self._warm]
        process = (warm or self._spares or [StartedProcess(spare=False)])[0]
        if process in self._spares:
            self._spares.remove(process)
        process.begin(order)
        return Birth(process, process.pipes)

    def tend(self, now: float) -> None:
        changed = packages_changed_at()
        useless = [
            spare
            for spare in self._spares
            if changed != self._packages or (spare.pid in self._warm and spare.code() is not None)
        ]
        self._packages = changed
        if self._attempts.may_begin(now):
            for _ in range(self._count - len(self._spares) + len(useless)):
                self._spares.append(StartedProcess(spare=True))
        for spare in useless:
            self._drop(spare)

    def _drop(self, spare: StartedProcess) -> None:
        self._spares.remove(spare)
        self._warm.discard(spare.pid)
        spare.close()
        spare.pipes.close()

    def pids(self) -> list[int]:
        return [spare.pid for spare in self._spares]

    def close(self) -> None:
        for spare in list(self._spares):
            self._drop(spare)


def _end_of(spare: StartedProcess) -> str:
    """How a spare that never got warm has ended, with its last words."""
    try:
        said = os.read(spare.pipes.stderr, _LAST_WORDS_BYTES).decode(errors="replace")
    except BlockingIOError:
        said = ""
    code = spare.wait()
    lines = said.strip().splitlines()
    return f"ended while it imported Scrapy ({lines[-1] if lines else f'exit code {code}'})"
