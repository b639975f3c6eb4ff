"""Workers by name, each a process of its own, that are started again when they were killed."""

import os
import signal
from contextlib import suppress
from typing import Self

import psutil

from tests.chaos.scene import MARK, marked
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.store.connection import Store

NAME = "VSCRAPY_TEST_WORKER"  # environment variable: whose process it is
UP_WITHIN_S = 60.0
ENDED_WITHIN_S = 10.0


class Crew:
    """Who works on one server; a context manager, at whose end nobody is left.

    Args:
        environment: variables of all of them.
    """

    def __init__(self, url: str, **environment: str) -> None:
        self._url = url
        self._mark = f"{os.getpid()}-{id(self)}"
        self._environment = {MARK: self._mark, **environment}
        self._own: dict[str, dict[str, str]] = {}
        self._members: dict[str, Workers] = {}

    def start(self, name: str, **environment: str) -> None:
        """Begin to start a worker, with variables of its own."""
        self._own[name] = environment
        variables = {**self._environment, NAME: name, **environment}
        self._members[name] = Workers(self._url, "--name", name, **variables)

    def __getitem__(self, name: str) -> Workers:
        return self._members[name]

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def name_of(self, pid: int) -> str:
        """The worker whose supervisor it is; empty for another process."""
        return next((n for n, worker in self._members.items() if worker.pid == pid), "")

    def has_died(self, name: str) -> bool:
        return self._members[name].process.poll() is not None

    def come_back(self, name: str) -> None:
        """Start a worker that was killed again, with the same name and variables."""
        self._members[name].__exit__()
        self.start(name, **self._own[name])

    def restore(self, store: Store) -> None:
        """See that all of them are there, and ready."""
        for name in list(self._members):
            if self.has_died(name):
                self.come_back(name)
        pids = {worker.pid for worker in self._members.values()}
        wait_until(
            lambda: (
                {view.record.pid for view in workers(store).values()} >= pids
                and all(worker.ready() for worker in self._members.values())
            ),
            UP_WITHIN_S,
            "all workers",
        )

    # Its processes; those of the dead are not among them.

    def supervisors(self) -> list[psutil.Process]:
        living = [name for name in sorted(self._members) if not self.has_died(name)]
        return [psutil.Process(self._members[name].pid) for name in living]

    def zygotes(self) -> list[psutil.Process]:
        return [w.zygote() for _, w in sorted(self._members.items()) if w.has_zygote()]

    def children(self) -> list[psutil.Process]:
        """Also those whose zygote is gone."""
        others = {p.pid for p in (*self.supervisors(), *self.zygotes())}
        return [process for process in self.processes() if process.pid not in others]

    def processes(self) -> list[psutil.Process]:
        return marked(self._mark)

    def names_of_processes(self) -> set[str]:
        """To which workers all processes that run belong."""
        names = set()
        for process in self.processes():
            with suppress(psutil.Error):
                names.add(process.environ()[NAME])
        return names

    def text(self) -> str:
        """What the supervisors said."""
        return "".join(f"\n--- {n}\n{w.text()}" for n, w in sorted(self._members.items()))

    def dismiss(self, name: str) -> None:
        """End a worker, at once."""
        self._members.pop(name).__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        for name in list(self._members):
            self.dismiss(name)
        wait_until(lambda: not self.processes(), ENDED_WITHIN_S, f"left: {self.processes()}")
