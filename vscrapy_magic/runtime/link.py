"""Owns a child's two threads that speak with the store, so that its event loop never waits.

One sends steps, one at a time; the other blocks until somebody wakes this child. What they learn
they hand to the event loop with `post`, which must be safe to call from any thread.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import (
    StoreAuthError,
    StoreError,
    StoreReadOnlyError,
    StoreUnreachableError,
    VscrapyError,
)
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken
from vscrapy_magic.store.messages import Lease, Step, StepReply

logger = logging.getLogger(__name__)

STORE_LOST_S: Final = 60.0  # a store that is away, or lets nobody in, for longer ends the child
_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 2.0
_WAKE_TIMEOUT_S: Final = 10.0  # of one blocking read; a quiet child asks no oftener than this
_CLOSE_S: Final = 5.0  # how long a thread may take to notice the end

Outcome = StepReply | VscrapyError
Post = Callable[..., object]


@dataclass(slots=True)
class _Answer:
    """An answer that has arrived, and that the event loop has not worked in yet."""

    then: Callable[..., None]
    outcome: Outcome
    published: dict[str, bytes]


class Link:
    """The way to one crawl's frontier; `send` and `close` are for the event loop only."""

    def __init__(self, frontier: Frontier, token: MemberToken, post: Post) -> None:
        self._frontier = frontier
        self._token = token
        self._post = post
        self._steps: queue.SimpleQueue[
            tuple[Step | Callable[[], Any], Callable[..., None]] | None
        ] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._answers: deque[_Answer] = deque()
        self._under_way = 0
        self._arrival = threading.Condition()
        self._threads = [
            threading.Thread(target=self._send_steps, name="vscrapy-steps", daemon=True)
        ]

    def start(self, woken: Callable[[], None]) -> None:
        """Begin; `woken` is posted each time somebody wakes this child."""
        self._threads.append(
            threading.Thread(target=self._wait, args=(woken,), name="vscrapy-wake", daemon=True)
        )
        for thread in self._threads:
            thread.start()

    def send(self, step: Step, then: Callable[[Outcome, dict[str, bytes]], None]) -> None:
        """Send a step; `then` gets the reply, or the error that cannot be helped by sending again.

        It also gets the content keys of the leases that another run has begun.
        """
        self._under_way += 1
        self._steps.put((step, then))

    def take_leases(self, timeout_s: float) -> tuple[Lease, ...] | None:
        """Take the leases out of the answers that the event loop has not worked in yet.

        For an event loop that is about to stand still: it will not work in what arrives. Blocks
        until all steps that were sent are answered.

        Returns:
            None when that took longer than `timeout_s`, or the newest answer is an error.
        """
        with self._arrival:
            if not self._arrival.wait_for(lambda: len(self._answers) == self._under_way, timeout_s):
                return None
            taken: list[Lease] = []
            for answer in self._answers:
                if not isinstance(answer.outcome, StepReply):
                    return None
                taken += answer.outcome.leases
                answer.outcome = msgspec.structs.replace(answer.outcome, leases=())
        return tuple(taken)

    def _deliver(self) -> None:
        """In the event loop: work in the answer that arrived first."""
        with self._arrival:
            answer = self._answers.popleft()
            self._under_way -= 1
        answer.then(answer.outcome, answer.published)

    def ask(self, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Ask the store after the steps that wait; `then` gets the answer, or a `VscrapyError`."""
        self._steps.put((call, then))

    def close(self) -> None:
        """End both threads; a step under way is waited for, the wait for a wake-up is not."""
        self._stop.set()
        self._steps.put(None)
        if self._threads[0].is_alive():
            self._threads[0].join(_CLOSE_S)

    def _send_steps(self) -> None:
        while (entry := self._steps.get()) is not None:
            wanted, then = entry
            if isinstance(wanted, Step):
                answer = _Answer(then, *self._outcome(wanted))
                with self._arrival:
                    self._answers.append(answer)
                    self._arrival.notify_all()
                self._post(self._deliver)
            else:
                self._post(then, self._answer(wanted))

    def _answer(self, call: Callable[[], Any]) -> Any:
        try:
            return self._patiently(call)
        except VscrapyError as exc:
            return exc
        except Exception as exc:
            logger.exception("The store could not be asked")
            return StoreError(f"the store could not be asked: {exc!r}")

    def _outcome(self, step: Step) -> tuple[Outcome, dict[str, bytes]]:
        try:
            reply = self._patiently(lambda: self._step(step))
            return reply, {
                lease.origin: self._patiently(lambda o=lease.origin: self._frontier.published(o))  # type: ignore[misc]
                for lease in reply.leases
                if lease.has_parts
            }
        except VscrapyError as exc:
            return exc, {}
        except Exception as exc:
            logger.exception("A step could not be sent")
            return StoreError(f"a step could not be sent: {exc!r}"), {}

    def _step(self, step: Step) -> StepReply:
        if step.ended:
            fail_point("before_commit")
        reply = self._frontier.step(step)
        if step.ended:
            fail_point("after_commit_before_ack")
        if step.parts:
            fail_point("mid_part")
        return reply

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """What a call returns, however often the store has to be asked.

        A store that answers but is full, or a replica, is waited for as long as it takes: what this
        child holds stays its own.

        Raises:
            StoreError: the store was away, or let nobody in, for `STORE_LOST_S`.
        """
        begun, pause, told = monotonic(), _RETRY_FIRST_S, ""
        while True:
            try:
                found = call()
            except (StoreUnreachableError, StoreReadOnlyError, StoreAuthError) as exc:
                is_lost = not isinstance(exc, StoreReadOnlyError) and (
                    monotonic() - begun > STORE_LOST_S
                )
                if self._stop.is_set() or is_lost:
                    raise
                if told != type(exc).__name__:
                    told = type(exc).__name__
                    logger.warning("Trying again until the store takes it: %s", exc)
            else:
                if told:
                    logger.info("The store took it after %.0f s", monotonic() - begun)
                return found
            self._stop.wait(pause)
            pause = min(_RETRY_MAX_S, 2 * pause)

    def _wait(self, woken: Callable[[], None]) -> None:
        pause = _RETRY_FIRST_S
        while not self._stop.is_set():
            try:
                if self._frontier.wait(self._token, _WAKE_TIMEOUT_S):
                    self._post(woken)
                pause = _RETRY_FIRST_S
            except Exception as exc:  # noqa: BLE001 - steps tell what is wrong; waiting goes on
                if self._stop.is_set():
                    return
                logger.debug("Waiting for a wake-up failed: %r", exc)
                self._stop.wait(pause)
                pause = min(_RETRY_MAX_S, 2 * pause)
