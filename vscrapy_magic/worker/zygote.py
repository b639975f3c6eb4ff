"""Owns where children come from: the zygote as its supervisor sees it, or spares where forks crash.

Used by the supervisor's loop only. Nothing here waits for a zygote: what it says is read when its
socket has something. A zygote that died is replaced; the children that it had forked go on. One
whose packages changed on disk is replaced before the next fork and ends after its last child.
"""

import contextlib
import logging
import os
import signal
import site
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Protocol

import msgspec

from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import (
    ZYGOTE_BYTES,
    Answer,
    Ask,
    FromZygote,
    ToZygote,
)
from vscrapy_magic.worker.process import ForkedProcess, Pipes, Process, StartedProcess

logger = logging.getLogger(__name__)

ZYGOTE_MODULE: Final = "vscrapy_magic.runtime.zygote"
RESTART_AFTER_S: Final = 1.0  # before a zygote that died young is replaced
_SENDING_BYTES: Final = 1024 * 1024  # room for orders while the zygote still imports
_END_WITHIN_S: Final = 2.0  # of a zygote whose socket was closed


class Birth(msgspec.Struct, frozen=True):
    """A child that was started, or will be at once."""

    process: Process
    pipes: Pipes


class Source(Protocol):
    """Where children come from."""

    def sockets(self) -> list[int]:
        """Descriptors to be watched; `heard` when one has something to read."""

    def heard(self, fd: int) -> None:
        """Read what came."""

    def start(self, order: ChildOrder) -> Birth:
        """A new child."""

    def tend(self, now: float) -> None:
        """Replace what is missing or out of date; called about once a second."""

    def pids(self) -> list[int]:
        """Processes of its own."""

    def close(self) -> None:
        """End its processes, not the children."""


class Zygote:
    """One zygote's process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENDING_BYTES)
        ours.setblocking(False)
        self.socket: Final = ours
        self.packages: Final = packages_changed_at()
        self.started: Final = time.monotonic()
        self.alive = True
        self.refused = False
        self._asked = 0
        self._waiting: dict[int, ForkedProcess] = {}
        self._forked: dict[int, ForkedProcess] = {}
        with theirs:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-m", ZYGOTE_MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def idle(self) -> bool:
        """Whether no child of it is left."""
        return not (self._waiting or self._forked)

    def fork(self, order: ChildOrder) -> Birth:
        """A child that will be forked as soon as the zygote can.

        Raises:
            OSError: the zygote takes no order.
        """
        pipes = Pipes()
        process = ForkedProcess(self._reap)
        self._asked += 1
        message = msgspec.msgpack.encode(ToZygote(Ask.FORK, number=self._asked, order=order))
        try:
            socket.send_fds(self.socket, [message], list(pipes.far))
        except OSError:
            pipes.close()
            raise
        finally:
            pipes.close_far()
        self._waiting[self._asked] = process
        return Birth(process, pipes)

    def _reap(self, pid: int) -> None:
        self._forked.pop(pid, None)
        if self.alive:
            with contextlib.suppress(OSError):
                self.socket.send(msgspec.msgpack.encode(ToZygote(Ask.REAP, number=pid)))

    def read(self) -> None:
        """Work in what it said; notices its end."""
        while self.alive:
            try:
                data = self.socket.recv(ZYGOTE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._died()
                return
            with contextlib.suppress(msgspec.MsgspecError):  # a newer zygote may say more
                self._take(msgspec.msgpack.decode(data, type=FromZygote))

    def _take(self, said: FromZygote) -> None:
        if said.answer is Answer.FORKED:
            process = self._waiting.pop(said.number)
            self._forked[said.pid] = process
            process.is_known(said.pid)
        elif said.answer is Answer.EXITED and said.pid in self._forked:
            self._forked[said.pid].has_ended(said.code)
        elif said.answer is Answer.REFUSED:
            logger.warning("Children are started without a zygote: %s", said.text)
            self.refused = True
            self._waiting.pop(said.number).is_orphaned()

    def _died(self) -> None:
        self.alive = False
        for process in [*self._waiting.values(), *self._forked.values()]:
            process.is_orphaned()
        self._waiting.clear()
        self._forked.clear()

    def close(self) -> None:
        """End the process; children that are left go on, and nobody tells of their exit."""
        self.read()
        self._died()
        self.socket.close()
        try:
            self.process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Zygotes:
    """The zygote in use, and those that wait for their last child to end."""

    def __init__(self) -> None:
        self._current: Zygote | None = Zygote()
        self._old: list[Zygote] = []
        self._spares: Spares | None = None
        self._not_before = 0.0

    def sockets(self) -> list[int]:
        return [z.socket.fileno() for z in self._all() if z.alive]

    def _all(self) -> list[Zygote]:
        return [*self._old, *([self._current] if self._current else [])]

    def heard(self, fd: int) -> None:
        for zygote in self._all():
            if zygote.alive and zygote.socket.fileno() == fd:
                zygote.read()

    def start(self, order: ChildOrder) -> Birth:
        self.tend(time.monotonic())
        if self._current is not None and not self._spares:
            try:
                return self._current.fork(order)
            except OSError as exc:
                logger.warning("The zygote takes no order (%s); a child starts without it", exc)
        # Slower, and never wrong.
        return (self._spares or Spares(count=0)).start(order)

    def tend(self, now: float) -> None:
        current = self._current
        if current is not None and not current.alive:
            code = current.process.wait()
            if not current.refused:
                logger.warning("The zygote has ended (%d); starting another", code)
            if now - current.started < RESTART_AFTER_S:
                self._not_before = now + RESTART_AFTER_S
            current.close()
            self._current = current = None
        if current is not None and current.refused and self._spares is None:
            self._spares = Spares(count=0)
        if current is not None and current.packages != packages_changed_at():
            logger.info("Installed packages have changed: new children get the new ones")
            self._old.append(current)
            self._current = current = None
        if current is None and now >= self._not_before and self._spares is None:
            self._current = Zygote()
        for old in [old for old in self._old if old.idle or not old.alive]:
            self._old.remove(old)
            old.close()

    def pids(self) -> list[int]:
        return [zygote.process.pid for zygote in self._all() if zygote.alive]

    def close(self) -> None:
        for zygote in self._all():
            zygote.close()


class Spares:
    """Children started by command line before they are needed, where a forked child would crash.

    Args:
        count: how many to keep; 0 starts each when it is needed.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._packages = packages_changed_at()
        self._spares: list[StartedProcess] = []

    def sockets(self) -> list[int]:
        return []

    def heard(self, fd: int) -> None:
        raise AssertionError(f"nothing is watched, and {fd} is none of ours")

    def start(self, order: ChildOrder) -> Birth:
        self.tend(time.monotonic())
        process = self._spares.pop() if self._spares else StartedProcess(spare=False)
        process.begin(order)
        return Birth(process, process.pipes)

    def tend(self, now: float) -> None:  # noqa: ARG002 - the same for all sources
        changed = packages_changed_at()
        for spare in list(self._spares):
            if spare.code() is not None or changed != self._packages:
                self._spares.remove(spare)
                spare.close()
                spare.pipes.close()
        self._packages = changed
        while len(self._spares) < self._count:
            self._spares.append(StartedProcess(spare=True))

    def pids(self) -> list[int]:
        return [spare.pid for spare in self._spares]

    def close(self) -> None:
        for spare in self._spares:
            spare.close()
            spare.pipes.close()
        self._spares.clear()


def new_source(platform: str = sys.platform) -> Source:
    """What this system allows: on macOS forked children crash in the system's libraries."""
    return Spares() if platform == "darwin" else Zygotes()


def packages_changed_at() -> tuple[int, ...]:
    """When packages were last installed or removed here; nanoseconds, one for each folder."""
    folders = {*site.getsitepackages(), site.getusersitepackages()}
    folders |= {path for path in sys.path if path.endswith("site-packages")}
    found = []
    for folder in sorted(folders):
        with contextlib.suppress(OSError):
            found.append(Path(folder).stat().st_mtime_ns)
    return tuple(found)
