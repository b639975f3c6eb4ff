"""Owns where children come from: the zygote as its supervisor sees it, or spares where forks crash.

Used by the supervisor's loop only. Nothing here waits for a zygote: what it says is read when its
socket has something. A zygote that died is replaced; the children that it had forked go on. One
whose packages changed on disk is replaced before the next fork and ends after its last child.

A zygote says when it can fork. Until then its workers take no crawls, but go on beating: whoever is
ready takes what is there, and nobody is judged gone. Not forking from the one before either, when
packages changed, costs a new crawl the second that imports take, and saves it from a mixture of old
and new modules.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Final

import msgspec

from vscrapy_magic.config import setting_ms
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import (
    ZYGOTE_BYTES,
    Answer,
    Ask,
    FromZygote,
    ToZygote,
)
from vscrapy_magic.worker.process import ForkedProcess, Pipes, StartedProcess
from vscrapy_magic.worker.source import (
    RESTART_AFTER_S,
    Attempts,
    Birth,
    Source,
    packages_changed_at,
)
from vscrapy_magic.worker.spares import Spares

logger = logging.getLogger(__name__)

ZYGOTE_MODULE: Final = "vscrapy_magic.runtime.zygote"
# Setting of workers: a zygote that imports for so many seconds is replaced; the next gets twice as
# many, because the machine may just be slow.
READY_VARIABLE: Final = "VSCRAPY_READY_S"
READY_WITHIN_S: Final = 60.0
_SENDING_BYTES: Final = 1024 * 1024  # room for orders while the zygote still imports
_END_WITHIN_S: Final = 2.0  # of a zygote whose socket was closed
_AT_START: Final = 0  # number of an answer to no request


class Zygote:
    """One zygote's process.

    Attributes:
        is_warm: whether it has imported what it needs, and said so.
        refused: why it must not fork, in its words; empty when it may.
        failure: why it ended before it was ready, in its words, traceback and all.
    """

    def __init__(self, inspect_in: str = "") -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENDING_BYTES)
        ours.setblocking(False)
        self.socket: Final = ours
        self.packages: Final = packages_changed_at()
        self.started: Final = time.monotonic()
        self.alive = True
        self.is_warm = False
        self.refused = ""
        self.failure = ""
        self._asked = _AT_START
        self._waiting: dict[int, ForkedProcess] = {}
        self._forked: dict[int, ForkedProcess] = {}
        folder = [inspect_in] if inspect_in else []
        with theirs:
            self.process: Final = subprocess.Popen(
                [sys.executable, "-m", ZYGOTE_MODULE, str(theirs.fileno()), *folder],
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
        elif said.answer is Answer.READY:
            self.is_warm = True
        elif said.answer is Answer.FAILED:
            self.failure = said.text
        elif said.answer is Answer.REFUSED:
            self.refused = said.text
            if said.number != _AT_START:
                self._waiting.pop(said.number).is_orphaned()

    def _died(self) -> None:
        self.alive = False
        for process in [*self._waiting.values(), *self._forked.values()]:
            process.is_orphaned()
        self._waiting.clear()
        self._forked.clear()

    def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process; children that are left go on, and nobody tells of their exit."""
        self.read()
        if not (self.is_warm or self.refused):
            self.kill()  # it would import to the end, only to hear that it is not needed
        self._died()
        self.socket.close()
        try:
            self.process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()


class Zygotes:
    """The zygote in use, and those that wait for their last child to end.

    Args:
        ready_within_s: what the first one gets for its imports.
        inspect_in: folder of the local cluster where it listens to senders; empty for none.
    """

    def __init__(self, ready_within_s: float = READY_WITHIN_S, inspect_in: str = "") -> None:
        self._inspect_in = inspect_in
        self._current: Zygote | None = Zygote(inspect_in)
        self._old: list[Zygote] = []
        self._spares: Spares | None = None
        self._attempts = Attempts("the zygote")
        self._ready_within_s = ready_within_s

    @property
    def ready(self) -> bool:
        if self._spares is not None:
            return self._spares.ready
        current = self._current
        return current is not None and current.alive and current.is_warm

    @property
    def problem(self) -> str:
        return self._spares.problem if self._spares is not None else self._attempts.problem

    def sockets(self) -> list[int]:
        spares = self._spares.sockets() if self._spares is not None else []
        return [*(z.socket.fileno() for z in self._all() if z.alive), *spares]

    def _all(self) -> list[Zygote]:
        return [*self._old, *([self._current] if self._current else [])]

    def heard(self, fd: int) -> None:
        for zygote in self._all():
            if zygote.alive and zygote.socket.fileno() == fd:
                zygote.read()
                if zygote is self._current and zygote.is_warm:
                    self._attempts.succeeded()
                return
        if self._spares is not None:
            self._spares.heard(fd)

    def start(self, order: ChildOrder) -> Birth:
        self.tend(time.monotonic())
        if self._spares is not None:
            return self._spares.start(order)
        if self._current is not None:
            try:
                return self._current.fork(order)
            except OSError as exc:
                logger.warning("The zygote takes no order (%s); a child starts without it", exc)
        # Slower, and never wrong.
        process = StartedProcess(spare=False)
        process.begin(order)
        return Birth(process, process.pipes)

    def tend(self, now: float) -> None:
        if self._spares is not None:
            self._spares.tend(now)
        elif self._current is not None:
            self._look_after(self._current, now)
        if self._current is None and self._spares is None and self._attempts.may_begin(now):
            self._current = Zygote(self._inspect_in)
        for old in [old for old in self._old if old.idle or not old.alive]:
            self._old.remove(old)
            old.close()

    def _look_after(self, current: Zygote, now: float) -> None:
        age_s = now - current.started
        if current.refused:
            logger.warning("Children are started without a zygote: %s", current.refused)
            self._retire(current)
            self._spares = Spares()
        elif not current.alive:
            self._current = None
            self._tell_end(current, age_s, now)
            current.close()
        elif current.packages != packages_changed_at():
            logger.info("Installed packages have changed: new children get the new ones")
            self._retire(current)
        elif not current.is_warm and age_s > self._ready_within_s:
            self._current = None
            current.kill()
            self._attempts.failed(f"was not ready to fork within {self._ready_within_s:g} s", now)
            self._ready_within_s *= 2
            current.close()

    def _tell_end(self, dead: Zygote, age_s: float, now: float) -> None:
        code = dead.process.wait()
        if dead.is_warm:
            logger.warning("The zygote has ended (%d); starting another", code)
            if age_s < RESTART_AFTER_S:
                self._attempts.rest(now)
            return
        logger.debug("The zygote could not import what it needs:\n%s", dead.failure)
        lines = dead.failure.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {code}"
        self._attempts.failed(f"ended while it imported Scrapy ({reason})", now)

    def _retire(self, zygote: Zygote) -> None:
        self._current = None
        self._old.append(zygote)

    def pids(self) -> list[int]:
        spares = self._spares.pids() if self._spares is not None else []
        return [*(zygote.process.pid for zygote in self._all() if zygote.alive), *spares]

    def close(self) -> None:
        for zygote in self._all():
            zygote.close()
        self._current = None
        self._old.clear()
        if self._spares is not None:
            self._spares.close()


def new_source(platform: str = sys.platform, *, inspect_in: str = "") -> Source:
    """What this system allows: on macOS forked children crash in the system's libraries."""
    if platform == "darwin":
        return Spares()
    return Zygotes(setting_ms(READY_VARIABLE, round(READY_WITHIN_S * 1000)) / 1000, inspect_in)
