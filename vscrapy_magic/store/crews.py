"""Owns the workers of one environment as the local cluster's keeper sees them.

Used by the keeper's loop only. Workers end when the pipe on their standard input does, so none of
them outlives the keeper. One that died is started again, the later the younger it died.
"""

import contextlib
import subprocess
import time
from typing import IO, Final

import msgspec
import psutil

LEAVE_WITHIN_S: Final = 5.0  # for workers that are told to go
RESTART_AFTER_S: Final = 0.5  # for workers that died young; doubles with each time
RESTART_MAX_S: Final = 30.0
SETTLED_S: Final = 10.0  # workers that lived for so long did not die young
# What the keeper fills in on a command line.
URL_FIELD: Final = "{url}"
NAME_FIELD: Final = "{name}"
COUNT_FIELD: Final = "{count}"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender asks of the keeper; one line of JSON.

    Attributes:
        pid: of the sender: its environment is kept as long as it lives.
        environment: which workers it needs; empty for none.
        command: command line of a process of workers, with the fields above.
        count: how many workers, at least; they are never made fewer.
        variables: environment variables of these workers.
    """

    pid: int
    environment: str = ""
    command: tuple[str, ...] = ()
    count: int = 0
    variables: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True):
    """What the keeper answers; one line of JSON: the server's address."""

    url: str


class Workers:
    """One process of workers, started again when it dies."""

    def __init__(self, call: Call, *, url: str, name: str, count: int, log: IO[bytes]) -> None:
        # A process of one worker does not number its name.
        fields = {URL_FIELD: url, NAME_FIELD: name if count > 1 else f"{name}-1"}
        fields[COUNT_FIELD] = str(count)
        self.count: Final = count
        self._command = [fields.get(word, word) for word in call.command]
        self._variables = call.variables
        self._log = log
        self._pause_s = RESTART_AFTER_S
        self._not_before = 0.0
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tend(self, now: float) -> float:
        """Start it when it does not run; when to look again (monotonic seconds, or infinity)."""
        if self._process is not None and self._process.poll() is not None:
            self._forget()
            is_young = now - self._started < SETTLED_S
            self._pause_s = min(2 * self._pause_s, RESTART_MAX_S) if is_young else RESTART_AFTER_S
            self._not_before = now + self._pause_s if is_young else now
        if self._process is None:
            if now < self._not_before:
                return self._not_before
            self._start(now)
        return float("inf")

    def _start(self, now: float) -> None:
        self._started = now
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd="/",
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,
            )
        except OSError as exc:  # its virtual environment has been removed
            self._log.write(f"{self._command[0]} cannot be run: {exc.strerror}\n".encode())
            self._not_before = now + RESTART_MAX_S

    def tell_to_go(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has gone; after the deadline (monotonic seconds) it is killed."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


class Crew:
    """The workers of one environment, and who needs them.

    Attributes:
        last_use: when somebody needed it (monotonic seconds).
    """

    def __init__(self, now: float) -> None:
        self.last_use = now
        self.workers: Final[list[Workers]] = []
        self._users: dict[int, psutil.Process] = {}

    @property
    def count(self) -> int:
        """How many workers it has."""
        return sum(workers.count for workers in self.workers)

    def is_used_by(self, pid: int, now: float) -> None:
        """Remember a sender."""
        self.last_use = now
        with contextlib.suppress(psutil.Error):
            self._users[pid] = psutil.Process(pid)

    def has_users(self) -> bool:
        """Whether one of the senders still lives."""
        self._users = {pid: user for pid, user in self._users.items() if user.is_running()}
        return bool(self._users)

    def end(self) -> None:
        """End all of its processes; waits for them."""
        for workers in self.workers:
            workers.tell_to_go()
        deadline = time.monotonic() + LEAVE_WITHIN_S
        for workers in self.workers:
            workers.end(deadline)
        self.workers.clear()
