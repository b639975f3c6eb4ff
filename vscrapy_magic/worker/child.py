"""Owns one child as its supervisor sees it: process, pipes, what it last said, how it is ended.

Used by the supervisor's loop only. The child is a process of its own session, started by command
line; it ends when its control pipe does, so it never outlives its supervisor.
"""

import enum
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.store.keys import CrawlId, MemberToken
from vscrapy_magic.store.messages import ChildOrder, encode
from vscrapy_magic.store.pipes import Command, FrameReader, FromChild, ToChild, frame, read_report

READ_BYTES: Final = 65536
TERM_AFTER_S: Final = 2.0  # of a stop that the child does not answer
KILL_AFTER_S: Final = 3.0
CLOSE_WITHIN_S: Final = 10.0  # for a child that answers and closes its spider
SILENT_AFTER_S: Final = 1.5  # without an answer to a ping, while stopping


class Pipe(enum.StrEnum):
    """Where bytes of a child come from."""

    REPORT = "report"
    STDOUT = "stdout"
    STDERR = "stderr"


class Child:
    """One running child.

    Attributes:
        pipes: read ends by their meaning; closed by `close`.
        stopping_since: monotonic seconds; None while the child may work.
    """

    def __init__(self, order: ChildOrder) -> None:
        """Start the process; blocks for the few milliseconds that this takes."""
        self.crawl_id: Final[CrawlId] = order.crawl_id
        self.token: Final[MemberToken] = order.token
        self.folder: Final = Path(order.folder)
        self.stopping_since: float | None = None
        self.phase = "starting"
        self.fatal = ""
        self._terminated = False
        self._heard = time.monotonic()
        self._pings = 0
        self._reader = FrameReader()
        control_read, self._control = os.pipe()
        report_read, report_write = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vscrapy_magic.runtime.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.folder,
                pass_fds=(control_read, report_write),
                start_new_session=True,
            )
        finally:
            os.close(control_read)
            os.close(report_write)
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise AssertionError("all three are pipes")
        order = msgspec.structs.replace(order, control_fd=control_read, report_fd=report_write)
        stdin.write(encode(order))
        stdin.close()
        self.pipes: Final = {
            report_read: Pipe.REPORT,
            stdout.fileno(): Pipe.STDOUT,
            stderr.fileno(): Pipe.STDERR,
        }
        self._report = report_read
        for fd in self.pipes:
            os.set_blocking(fd, False)
        os.set_blocking(self._control, False)

    def reports(self, data: bytes) -> list[FromChild]:
        """What the bytes of the report pipe complete."""
        self._heard = time.monotonic()
        return [read_report(body) for body in self._reader.feed(data)]

    def say(self, command: Command) -> None:
        """Send a command; one that a full pipe does not take is lost, as on a child that hangs."""
        self._pings += 1
        try:
            os.write(self._control, frame(ToChild(command, self._pings)))
        except OSError:
            return

    def stop(self) -> None:
        """Begin to stop; `press` follows up."""
        if self.stopping_since is None:
            self.stopping_since = self._heard = time.monotonic()
            self.say(Command.STOP)

    def press(self, now: float) -> None:
        """The ladder of a stop: ask, SIGTERM, SIGKILL; more time for one that answers."""
        if self.stopping_since is None or self.process.poll() is not None:
            return
        self.say(Command.PING)
        waited = now - self.stopping_since
        answers = now - self._heard < SILENT_AFTER_S
        if waited > (CLOSE_WITHIN_S if answers else KILL_AFTER_S):
            self.kill()
        elif waited > TERM_AFTER_S and not answers and not self._terminated:
            self._terminated = True
            self.process.terminate()

    def kill(self) -> None:
        """End the child and what it started, now."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def close(self) -> None:
        """Reap the process and close its pipes; the folder stays with its maker."""
        self.kill()
        self.process.wait()
        os.close(self._control)
        os.close(self._report)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
