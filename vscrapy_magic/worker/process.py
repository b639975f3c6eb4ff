"""Owns one process of a child and the supervisor's ends of its pipes, whoever started it.

Used by the supervisor's loop only. A process that was started by command line is this one's own
child; one that the zygote forked is not, so its exit is told by the zygote, or, when that is gone,
by a file descriptor of the process (pidfd). Then nobody can say how it ended.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
import psutil

from vscrapy_magic.store.messages import ChildOrder, encode
from vscrapy_magic.store.pipes import Mark

CHILD_MODULE: Final = "vscrapy_magic.runtime.child"
UNKNOWN_CODE: Final = 1000  # the process has ended, and nobody saw how


class Pipes:
    """The pipes of one child that is to be started: both ends, until the far ones are closed."""

    def __init__(self) -> None:
        self.control_far, self.control = os.pipe()
        self.report, self.report_far = os.pipe()
        self.stdout, self.stdout_far = os.pipe()
        self.stderr, self.stderr_far = os.pipe()
        self.mark_far = Mark.create()
        self.mark: Final = Mark(self.mark_far)
        for fd in (self.control, self.report, self.stdout, self.stderr):
            os.set_blocking(fd, False)

    @property
    def far(self) -> tuple[int, ...]:
        """The child's ends, in the order of `FORK_FDS`."""
        return (
            *(self.control_far, self.report_far),
            *(self.stdout_far, self.stderr_far, self.mark_far),
        )

    def close_far(self) -> None:
        """The child has its ends, or will never be: from now on they end with it."""
        for fd in self.far:
            os.close(fd)

    def close(self) -> None:
        for fd in (self.control, self.report, self.stdout, self.stderr):
            os.close(fd)
        self.mark.close()


class Process(Protocol):
    """A child's process."""

    @property
    def pid(self) -> int:
        """Process id; 0 while it is not known yet."""

    def code(self) -> int | None:
        """Exit code, minus the signal, or `UNKNOWN_CODE`; None while it runs."""

    def is_known(self, pid: int) -> None:
        """The child itself has told its process id."""

    def is_silent(self) -> None:
        """All its pipes have ended: a process that nobody knows the id of is no more."""

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""

    def kill(self) -> None:
        """End the process and what it started, now."""

    def close(self) -> None:
        """Give the process id back; kills what is left."""


class StartedProcess:
    """A child that was started by command line.

    Started as a spare it imports what it needs, says so on its report pipe and waits for its order.
    """

    def __init__(self, *, spare: bool) -> None:
        self.pipes: Final = Pipes()
        warm = ["--spare", str(self.pipes.report_far)] if spare else []
        self._process = subprocess.Popen(
            [sys.executable, "-m", CHILD_MODULE, *warm],
            stdin=subprocess.PIPE,
            stdout=self.pipes.stdout_far,
            stderr=self.pipes.stderr_far,
            pass_fds=(self.pipes.control_far, self.pipes.report_far, self.pipes.mark_far),
            start_new_session=True,
        )
        self._numbers = self.pipes.far
        self.pipes.close_far()

    def begin(self, order: ChildOrder) -> None:
        """Let it have its order."""
        control, report, _, _, mark = self._numbers
        order = msgspec.structs.replace(order, control_fd=control, report_fd=report, mark_fd=mark)
        if self._process.stdin is None:
            raise AssertionError("it is a pipe")
        with contextlib.suppress(OSError):  # it has ended already; its exit says the rest
            self._process.stdin.write(encode(order))
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def code(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        """Its exit code; blocks until it has ended."""
        return self._process.wait()

    def is_known(self, pid: int) -> None:
        """Nothing new."""

    def is_silent(self) -> None:
        """Its exit is told by the system."""

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        kill_group(self._process.pid)

    def close(self) -> None:
        self.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class ForkedProcess:
    """A child that a zygote forked, or is asked to fork.

    Args:
        reap: tells the zygote that the process id may be given back.
    """

    def __init__(self, reap: Callable[[int], None]) -> None:
        self.pid = 0
        self._reap = reap
        self._code: int | None = None
        self._kill_wanted = False
        self._pidfd = -1
        self._orphaned = False
        self._silent = False

    def is_known(self, pid: int) -> None:
        """The zygote, or the child itself, has told the process id."""
        if self.pid:
            return
        self.pid = pid
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(
                OSError
            ):  # it has been reaped, or the kernel has no such thing
                self._pidfd = os.pidfd_open(pid)
        if self._kill_wanted:
            self.kill()

    def has_ended(self, code: int) -> None:
        self._code = code

    def is_silent(self) -> None:
        self._silent = True  # its zygote may be known to be dead before that, or only after it

    def is_orphaned(self) -> None:
        """The zygote is gone: nobody will tell of the exit."""
        self._orphaned = True

    def code(self) -> int | None:
        if self._code is None and self._orphaned and not self._runs():
            self._code = UNKNOWN_CODE
        return self._code

    def _runs(self) -> bool:
        if not self.pid:
            return not self._silent  # whoever was forked would hold the pipes
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return not poll.poll(0)
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def signal(self, number: int) -> None:
        if self.pid and self.code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._kill_wanted = True
        if self.pid:
            kill_group(self.pid)

    def close(self) -> None:
        if self._code is None or not self._orphaned:
            self.kill()
        if self.pid and not self._orphaned:
            self._reap(self.pid)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def kill_group(pid: int) -> None:
    """End the processes of a session that `pid` leads, or that process alone before it does."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped the process, or traces it: it cannot answer, and is not ill."""
    if hasattr(os, "pidfd_open"):  # Linux: cheaper than asking for all that is known
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in {"T", "t"}
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
    except psutil.Error:
        return False
