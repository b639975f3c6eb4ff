"""One child as its supervisor sees it, without a process: what it says, silence, the ladder."""

import signal
import time
from collections.abc import Iterator

import msgspec
import pytest

from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import ExitCode, FromChild, Mark, Phase, Report, frame
from vscrapy_magic.worker.child import CLOSE_S, HANG_KILL_S, HUNG_S, Child
from vscrapy_magic.worker.output import Output
from vscrapy_magic.worker.process import UNKNOWN_CODE, Pipes
from vscrapy_magic.worker.source import Birth


class Process:
    """A process that only remembers what was done to it."""

    def __init__(self) -> None:
        self.pid = 0
        self.killed = False
        self.signals: list[int] = []
        self.exit: int | None = None

    def code(self) -> int | None:
        return self.exit

    def is_known(self, pid: int) -> None:
        self.pid = pid

    def is_silent(self) -> None:
        pass

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        pass


class Seen:
    """A child, and our hands on both sides of its pipes."""

    def __init__(self) -> None:
        self.process = Process()
        self.pipes = Pipes()
        order = ChildOrder(
            crawl_id=CrawlId("c"),
            token=MemberToken("t"),
            worker=WorkerName("w"),
            url="redis://nowhere",
            folder="/nowhere",
        )
        output = Output(order.crawl_id, order.worker)
        self.child = Child(order, Birth(self.process, self.pipes), output)
        self.now = time.monotonic()

    def says(self, report: FromChild) -> None:
        self.child.take(self.pipes.report, frame(report))

    def pass_s(self, seconds: float, *, answering: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            self.child.press(self.now)
            if answering:
                self.says(FromChild(Report.PONG, number=self.child._pings))

    def texts(self) -> list[str]:
        return [line.text for line in self.child.output.take()]


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.pipes.close_far()
    made.child.close()


def test_reports_and_phases_of_a_newer_runtime_are_skipped(seen: Seen) -> None:
    body = msgspec.msgpack.encode({"report": "dance", "text": "x"})
    seen.child.take(seen.pipes.report, len(body).to_bytes(4, "big") + body)
    seen.says(FromChild(Report.PHASE, text=Phase.RUNNING, number=5))
    seen.says(FromChild(Report.PHASE, text="dancing", number=5))
    assert seen.child.phase is Phase.RUNNING
    assert not seen.process.killed


def test_a_child_whose_reports_cannot_be_read_is_killed(seen: Seen) -> None:
    seen.child.take(seen.pipes.report, b"\xff" * 8)
    assert seen.process.killed
    assert any("nobody can read" in text for text in seen.texts())


def test_late_answers_are_answers(seen: Seen) -> None:
    for _ in range(int(2 * HANG_KILL_S)):
        seen.pass_s(1.0)
        seen.says(FromChild(Report.PONG, number=seen.child._pings - 3))  # always behind
    assert not seen.process.killed
    assert seen.texts() == []


def test_silence_is_shown_once_then_killed(seen: Seen) -> None:
    seen.pass_s(HUNG_S + 0.5)
    seen.says(FromChild(Report.STACK, logger="Cell In[3], line 12, in parse", text="the stack"))
    seen.pass_s(HANG_KILL_S - HUNG_S - 2)
    assert not seen.process.killed
    (text,) = seen.texts()
    expected = "the spider has not answered for 10 s; it is at Cell In[3], line 12, in parse"
    assert text == f"{expected}\nthe stack"
    seen.pass_s(4)
    assert seen.process.killed
    assert seen.child.describe_end() == "was killed: it did not answer for 300 s"


def test_silence_of_one_that_is_debugged_or_may_hang_means_nothing(seen: Seen) -> None:
    seen.says(FromChild(Report.PHASE, text=Phase.DEBUGGING, number=0))
    seen.pass_s(HANG_KILL_S + 20)
    assert not seen.process.killed
    assert seen.texts() == []
    seen.says(FromChild(Report.PHASE, text=Phase.RUNNING, number=0))
    seen.says(FromChild(Report.LIMITS, hang_s=0, close_s=10))
    seen.pass_s(HANG_KILL_S + 20)
    assert not seen.process.killed


def test_ladder_of_a_stop(seen: Seen) -> None:
    seen.child.stop(seen.now, leave=True)
    seen.pass_s(1.8)
    assert (seen.process.signals, seen.process.killed) == ([], False)
    seen.pass_s(0.6)
    assert (seen.process.signals, seen.process.killed) == ([signal.SIGTERM], False)
    seen.pass_s(1.0)
    assert (seen.process.signals, seen.process.killed) == ([signal.SIGTERM], True)


def test_one_that_answers_the_stop_has_its_time(seen: Seen) -> None:
    seen.child.stop(seen.now, leave=True)
    seen.pass_s(CLOSE_S - 1, answering=True)
    assert (seen.process.signals, seen.process.killed) == ([], False)
    seen.pass_s(2, answering=True)
    assert seen.process.killed


@pytest.mark.parametrize(
    ("code", "phase", "verdict", "blamed"),
    [
        (-signal.SIGSEGV, Phase.RUNNING, "", True),
        (-signal.SIGABRT, Phase.CLOSING, "", True),
        (-signal.SIGKILL, Phase.RUNNING, "", False),
        (-signal.SIGTERM, Phase.RUNNING, "", False),
        (-signal.SIGKILL, Phase.RUNNING, "too much memory", True),
        (ExitCode.DONE, Phase.RUNNING, "", True),
        (ExitCode.DONE, Phase.CLOSED, "", False),
        (ExitCode.FATAL, Phase.LOADING, "", False),
        (ExitCode.MEMBER_GONE, Phase.RUNNING, "", False),
        (ExitCode.STORE_LOST, Phase.RUNNING, "", False),
        (ExitCode.EXITED, Phase.RUNNING, "", True),
        (3, Phase.RUNNING, "", True),
        (UNKNOWN_CODE, Phase.RUNNING, "", False),
    ],
)
def test_only_an_end_of_its_own_making_blames_the_lease_that_ran(
    seen: Seen, code: int, phase: Phase, verdict: str, *, blamed: bool
) -> None:
    mark = Mark(seen.pipes.mark_far)
    seen.says(FromChild(Report.PHASE, text=phase, number=1))
    if verdict:
        seen.child.condemn(verdict)
    seen.process.exit = code
    assert seen.child.suspects() == ()  # nothing ran
    mark.cells[3], mark.cells[7] = 5, 6
    assert seen.child.suspects() == ((5, 6) if blamed else ())  # these were begun
    assert not seen.child.is_clear
    mark.cells[0] = 5
    assert seen.child.suspects() == ((5,) if blamed else ())
    assert seen.child.is_clear
    mark.close()
