"""What a child takes out of answers that its event loop will not work in for a while."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from vscrapy_magic.errors import MemberGoneError
from vscrapy_magic.runtime.link import Link
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken
from vscrapy_magic.store.messages import CrawlState, Lease, LeaseKind, Step, StepReply, Totals

TOKEN = MemberToken("t")


def reply(*leases: int) -> StepReply:
    return StepReply(
        state=CrawlState.RUNNING,
        close_reason="",
        commit_no=1,
        epoch=1,
        control=1,
        hungry=0,
        totals=Totals(),
        leases=tuple(Lease(n, LeaseKind.REQUEST, f"1.{n}", "s", b"") for n in leases),
    )


class Loop:
    """An event loop that stands still until `run`, and a frontier that answers when it is let."""

    def __init__(self, *answers: Any) -> None:
        self.posted: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.may_answer = threading.Event()
        self._answers = list(answers)

    def post(self, function: Callable[..., object], *args: object) -> None:
        self.posted.append((function, args))

    def run(self) -> None:
        posted, self.posted = self.posted, []
        for function, args in posted:
            function(*args)

    def step(self, _step: Step) -> StepReply:
        assert self.may_answer.wait(10)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast("StepReply", answer)

    def wait(self, _token: MemberToken, _timeout_s: float) -> bool:
        threading.Event().wait(0.05)
        return False


def link(loop: Loop) -> Link:
    made = Link(cast("Frontier", loop), TOKEN, loop.post)
    made.start(lambda: None)
    return made


@pytest.fixture
def got() -> list[Any]:
    return []


def send(to: Link, got: list[Any], seq: int) -> None:
    to.send(Step(token=TOKEN, seq=seq), lambda outcome, _published: got.append(outcome))


def test_leases_are_taken_out_of_an_answer_that_is_still_to_come(got: list[Any]) -> None:
    loop = Loop(reply(7, 8))
    with_loop = link(loop)
    send(with_loop, got, 1)
    assert with_loop.take_leases(0.05) is None  # not there yet
    loop.may_answer.set()
    taken = with_loop.take_leases(10)
    assert [lease.lease_id for lease in taken or ()] == [7, 8]
    assert got == []
    loop.run()
    assert [outcome.leases for outcome in got] == [()]
    with_loop.close()


def test_answers_are_worked_in_in_their_order_and_once(got: list[Any]) -> None:
    loop = Loop(reply(1), reply(2))
    with_loop = link(loop)
    loop.may_answer.set()
    send(with_loop, got, 1)
    assert [lease.lease_id for lease in with_loop.take_leases(10) or ()] == [1]
    send(with_loop, got, 2)
    assert [lease.lease_id for lease in with_loop.take_leases(10) or ()] == [2]
    loop.run()
    assert [outcome.leases for outcome in got] == [(), ()]
    assert with_loop.take_leases(0) == ()
    with_loop.close()


def test_of_an_answer_that_is_an_error_nothing_is_taken(got: list[Any]) -> None:
    loop = Loop(MemberGoneError("gone"))
    with_loop = link(loop)
    loop.may_answer.set()
    send(with_loop, got, 1)
    assert with_loop.take_leases(10) is None
    loop.run()
    assert isinstance(got[0], MemberGoneError)
    with_loop.close()
