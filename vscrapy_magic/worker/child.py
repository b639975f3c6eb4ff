"""Owns one child as its supervisor sees it: what it last said, how it is ended, why it died.

Used by the supervisor's loop only. The child is a process of its own session; it ends when its
control pipe does, so it never outlives its supervisor.
"""

import contextlib
import enum
import logging
import os
import signal
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.store.failures import FailureKind
from vscrapy_magic.store.frontier import CLAIM_MAX_MS
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import (
    Command,
    ExitCode,
    FrameReader,
    FromChild,
    Phase,
    Report,
    ToChild,
    frame,
    read_report,
)
from vscrapy_magic.worker.death import Death, LastWords
from vscrapy_magic.worker.output import Output
from vscrapy_magic.worker.process import UNKNOWN_CODE, is_stopped
from vscrapy_magic.worker.source import Birth

READ_BYTES: Final = 65536
PINGS_KEPT: Final = 1000  # unanswered ones; only the oldest counts
PING_S: Final = 1.0
STOP_PING_S: Final = 0.3  # the same, while stopping
TERM_AFTER_S: Final = 2.0  # of a stop that the child does not answer
KILL_AFTER_S: Final = 3.0
CLOSE_S: Final = 10.0  # for a child that answers and closes its spider; a setting says otherwise
SILENT_S: Final = 1.5  # without an answer to a ping, while stopping
HUNG_S: Final = 10.0  # without an answer to a ping: its stack is asked for
HANG_KILL_S: Final = 300.0  # the same: it is killed; a setting says otherwise
STACK_WITHIN_S: Final = (
    1.0  # then the stack is written by a signal handler, without the interpreter
)
DRAIN_S: Final = 1.0  # for the pipes of a process that has ended; others may hold them for ever
_OWN_SIGNALS: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
)
_OURS: Final = frozenset(ExitCode) - {ExitCode.EXITED}


PHASES: Final = frozenset(Phase)
EARLY: Final = frozenset({Phase.STARTING, Phase.LOADING})
_TRIAL: Final = EARLY | {Phase.TRYING}


class Pipe(enum.StrEnum):
    """Where bytes of a child come from."""

    REPORT = "report"
    STDOUT = "stdout"
    STDERR = "stderr"


class Child:
    """One running child.

    Attributes:
        pipes: read ends by their meaning; closed by `close`.
        ended_pipes: those of them that have ended.
        stopping_since: monotonic seconds; None while the child may work.
        fatal: why the crawl cannot run here, in the child's words.
        verdict: why this supervisor killed it, when the child itself is to blame.
    """

    def __init__(self, order: ChildOrder, birth: Birth, output: Output) -> None:
        self.crawl_id: Final[CrawlId] = order.crawl_id
        self.token: Final[MemberToken] = order.token
        self.worker: Final[WorkerName] = order.worker
        self.code_version: Final = order.code_version
        self.is_trial: Final = order.is_trial
        self.folder: Final = Path(order.folder)
        self.process: Final = birth.process
        self.output: Final = output
        self._words = LastWords()
        self._over_memory = False
        self.stopping_since: float | None = None
        self.phase = Phase.STARTING
        self.fatal = ""
        self.verdict = ""
        self.started: Final = time.monotonic()
        self._ends = birth.pipes
        self.pipes: Final = {
            birth.pipes.report: Pipe.REPORT,
            birth.pipes.stdout: Pipe.STDOUT,
            birth.pipes.stderr: Pipe.STDERR,
        }
        self.ended_pipes: Final[set[int]] = set()
        self._reader = FrameReader()
        self._terminated = self._killed = False
        self._dead_since: float | None = None
        self._phase_since = self.started
        self._pings = 0
        self._pinged_at = 0.0
        self._unanswered: deque[tuple[int, float]] = deque()
        self._stack_asked_at: float | None = None
        self._stack_told = False
        self._hang_kill_s = HANG_KILL_S
        self._close_s = CLOSE_S

    # What it says.

    def take(self, fd: int, data: bytes) -> None:
        """Work in what came from one of its pipes; empty bytes are the pipe's end."""
        if not data:
            self.ended_pipes.add(fd)
            if len(self.ended_pipes) == len(self.pipes):
                self.process.is_silent()
        pipe = self.pipes[fd]
        if pipe is Pipe.STDERR:
            self._words.hear_stderr(data)
        if pipe is not Pipe.REPORT:
            self.output.raw(pipe, data)
            return
        try:
            bodies = self._reader.feed(data)
        except ValueError as exc:
            self.output.own(logging.WARNING, f"the child writes what nobody can read: {exc}")
            self.kill()
            return
        for body in bodies:
            with contextlib.suppress(msgspec.MsgspecError):  # a newer runtime may say more
                self._heard(read_report(body))

    def _heard(self, report: FromChild) -> None:
        if report.report is Report.LOG:
            self.output.record(report)
            self._words.hear_log(report.logger, report.level, report.text)
        elif report.report is Report.PONG:
            while self._unanswered and self._unanswered[0][0] <= report.number:
                self._unanswered.popleft()
            if self._stack_told:
                self.output.own(logging.INFO, "the spider answers again")
            self._stack_asked_at, self._stack_told = None, False
        elif report.report is Report.PHASE:
            before = self.phase
            if report.text in PHASES:
                self.phase = Phase(report.text)
                self._phase_since = time.monotonic()
            self.process.is_known(report.number)
            if self.phase is Phase.LOADING and before is not Phase.DEBUGGING:
                tries = f" to try code version {self.code_version}" if self.is_trial else ""
                self.output.own(logging.INFO, f"a child starts{tries} (process {report.number})")
        elif report.report is Report.LIMITS:
            self._hang_kill_s, self._close_s = report.hang_s, report.close_s
            self.output.set_level(report.level)
        elif report.report is Report.MASK:
            self.output.mask(report.text)
        elif report.report is Report.STACK:
            self._tell_stack(report)
        elif report.report is Report.READY:
            pass  # a spare that got its order before it was warm
        else:
            self.fatal = report.text
            self.output.own(logging.ERROR, report.text)

    def _tell_stack(self, report: FromChild) -> None:
        if self._stack_asked_at is None or self._stack_told:
            return  # it has answered meanwhile
        self._stack_told = True
        self._words.hear_stack(report.text)
        where = f"it is at {report.logger}" if report.logger else "it is in no line of the spider"
        text = f"the spider has not answered for {HUNG_S:.0f} s; {where}\n{report.text}"
        self.output.own(logging.WARNING, text)

    def starts(self, now: float) -> bool:
        """Whether it is on its way; one that takes too long leaves its place to others."""
        return self.phase in EARLY and now - self.started < CLAIM_MAX_MS / 1000

    # What it is told.

    def say(self, command: Command) -> None:
        """Send a command; one that a full pipe does not take is lost, as on a child that hangs."""
        try:
            os.write(self._ends.control, frame(ToChild(command, self._pings)))
        except OSError:
            return

    def stop(self, now: float, *, leave: bool) -> None:
        """Begin to stop; `press` follows up.

        Args:
            leave: tell the child to leave a crawl that goes on. One whose crawl ends has heard of
                that, and of the reason, from the frontier.
        """
        if self.stopping_since is None:
            self.stopping_since = now
            self._unanswered.clear()
            if leave:
                self.say(Command.STOP)
            self._ping(now)

    def press(self, now: float) -> None:
        """Ask whether it lives, and act on its silence; called several times a second."""
        if self._killed or self.process.code() is not None:
            return
        if now - self._pinged_at >= (PING_S if self.stopping_since is None else STOP_PING_S):
            self._ping(now)
        if self.phase is Phase.TRYING:
            self._unanswered.clear()  # it waits for others
        silence_s = now - self._unanswered[0][1] if self._unanswered else 0.0
        if self.stopping_since is None and silence_s >= PING_S and is_stopped(self.process.pid):
            # Nobody hangs who is stopped; once it goes on, it has all of its time again.
            self._unanswered.clear()
            silence_s = 0.0
        if self.phase is Phase.CLOSED:
            self._press_closed(now)
        elif self.stopping_since is not None:
            self._press_stopping(now, now - self.stopping_since, silence_s)
        elif silence_s >= min(HUNG_S, self._hang_kill_s or HUNG_S):
            self._press_silent(now, silence_s)

    def _ping(self, now: float) -> None:
        self._pings += 1
        self._pinged_at = now
        if len(self._unanswered) < PINGS_KEPT:
            self._unanswered.append((self._pings, now))
        self.say(Command.PING)

    def _press_closed(self, now: float) -> None:
        """All is committed; what is left is the interpreter's end, which threads may hold up."""
        if now - self._phase_since > self._close_s:
            text = f"the process did not end within {self._close_s:.0f} s of its spider: killed"
            self.output.own(logging.WARNING, text)
            self.kill()

    def _press_stopping(self, now: float, waited_s: float, silence_s: float) -> None:
        """The ladder of a stop: ask, SIGTERM, SIGKILL; more time for one that answers."""
        if silence_s < SILENT_S:
            if self.phase is Phase.CLOSING:
                waited_s = min(waited_s, now - self._phase_since)
            if waited_s > self._close_s:
                text = f"the spider did not end within {self._close_s:.0f} s of the stop: killed"
                self.output.own(logging.WARNING, text)
                self.kill()
        elif waited_s > KILL_AFTER_S:
            self.output.own(logging.WARNING, "the spider does not answer the stop: killed")
            self.kill()
        elif waited_s > TERM_AFTER_S and not self._terminated:
            self._terminated = True
            self.process.signal(signal.SIGTERM)

    def _press_silent(self, now: float, silence_s: float) -> None:
        """One that is silent for long is shown, and at last killed."""
        if self.phase is Phase.DEBUGGING:
            self._unanswered.clear()
        elif self._hang_kill_s and silence_s >= self._hang_kill_s:
            self.verdict = f"it did not answer for {self._hang_kill_s:.0f} s"
            self.kill()
        elif self._stack_asked_at is None:
            self._stack_asked_at = now
            self.say(Command.STACK)
        elif not self._stack_told and now - self._stack_asked_at >= STACK_WITHIN_S:
            self._stack_told = True
            text = f"the spider has not answered for {silence_s:.0f} s; its stack comes on stderr"
            self.output.own(logging.WARNING, text)
            self.process.signal(signal.SIGUSR2)

    def condemn(self, verdict: str) -> None:
        """Kill the child for the memory that it uses."""
        self.verdict = verdict
        self._over_memory = True
        self.kill()

    def kill(self) -> None:
        """End the child and what it started, now."""
        self._killed = True
        self.process.kill()

    # Its end.

    def has_ended(self, now: float) -> bool:
        """Whether the process has ended and all that it wrote has been read."""
        if self.process.code() is None:
            return False
        if self._dead_since is None:
            self._dead_since = now
            self.process.kill()  # what it started may hold its pipes
        drained = len(self.ended_pipes) == len(self.pipes)
        return drained or now - self._dead_since > DRAIN_S

    def last_lines(self) -> None:
        """End lines that have no end."""
        for pipe in (Pipe.STDOUT, Pipe.STDERR):
            self.output.raw(pipe, b"")

    @property
    def urgent(self) -> bool:
        """Whether a moment counts: it is stopping, or its pipes have ended."""
        ending = self.stopping_since is not None or self._dead_since is not None
        return ending or bool(self.ended_pipes)

    @property
    def has_tried_in_vain(self) -> bool:
        """Whether it was to try new code and has never taken part."""
        return self.is_trial and self.phase in _TRIAL

    def describe_end(self) -> str:
        """How it ended, in words; empty for an end as it should be."""
        code = self.process.code()
        if self.verdict:
            return f"was killed: {self.verdict}"
        if code in {ExitCode.DONE, UNKNOWN_CODE} and self.phase is Phase.CLOSED:
            return ""
        if code == ExitCode.NOT_TAKEN:
            return ""
        if code == ExitCode.UNFIT:
            return ""  # it has said why
        if code == UNKNOWN_CODE or code is None:
            return "is gone, and nobody saw how"
        if code < 0:
            return f"died of signal {-code} ({signal.strsignal(-code)})"
        if code == ExitCode.EXITED:
            return "was ended by SystemExit in the spider's code"
        if code in _OURS and code != ExitCode.DONE:
            return f"ended: {ExitCode(code).name.lower().replace('_', ' ')}"
        return f"was ended by its own code (exit code {code})"

    def suspects(self) -> tuple[int, ...]:
        """Leases to blame when it ended itself: the one that ran, else all that were begun."""
        if not self.ended_itself:
            return ()
        return (self._ends.mark.read(),) if self.is_clear else self._ends.mark.in_flight()

    @property
    def ended_itself(self) -> bool:
        """Whether the end is of its own making, and none that this package means to make."""
        code = self.process.code()
        if code is None or code == UNKNOWN_CODE:
            return bool(self.verdict)
        if code < 0:
            return bool(self.verdict) or -code in _OWN_SIGNALS
        return code not in _OURS or (code == ExitCode.DONE and self.phase is not Phase.CLOSED)

    def death(self) -> Death | None:
        """What is told of its end among the failures; None when that was not its own doing."""
        if not self.ended_itself:
            return None
        return Death(
            kind=FailureKind.MEMORY if self._over_memory else FailureKind.CRASH,
            code=self.process.code() or 0,
            how=f"{self.describe_end()} while {self.phase}",
            verdict=self.verdict,
            stack=self._words.stack(),
            lines=tuple(self._words.lines),
            folder=self.folder,
            worker=self.output.worker,
            code_version=self.code_version,
            secrets=self.output.masked,
        )

    @property
    def is_clear(self) -> bool:
        """Whether it is known which lease ran at last."""
        return self._ends.mark.read() != 0

    def close(self) -> None:
        """Let the process and its pipes go; the folder stays with its maker."""
        self.process.close()
        self._ends.close()
