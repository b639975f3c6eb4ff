"""A user at the prompt of a child in the debugger, without a kernel or a terminal between them."""

import time
from typing import Self

from tests.waiting import wait_until
from vscrapy_magic.store.breakpoints import Halt, Halts, SaidKind, Screen
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId

HALT_S = 30.0
ANSWER_S = 15.0


def halt_of(store: Store, crawl_id: CrawlId, number: int = 0) -> Halt:
    """The child that has stood in the debugger for longest, once there is one.

    Args:
        number: only one that came after the halt of this number.
    """
    halts = Halts(store, crawl_id)

    def later() -> list[Halt]:
        return [halt for halt in halts.standing() if halt.number > number]

    wait_until(later, HALT_S, "a child in the debugger")
    return later()[0]


class User:
    """Types at one halt, and reads what it shows."""

    def __init__(self, store: Store, crawl_id: CrawlId, after: int = 0) -> None:
        self._halts = Halts(store, crawl_id)
        self.halt = halt_of(store, crawl_id, after)
        self._screen = Screen(store, crawl_id, self.halt.number)
        self.end = ""

    def __enter__(self) -> Self:
        self._screen.__enter__()
        self.banner = self.read()
        return self

    def __exit__(self, *exc: object) -> None:
        self._screen.__exit__(*exc)

    def read(self) -> str:
        """What is shown until the debugger waits for a line, or is left."""
        text, deadline = "", time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            said = self._screen.read(0.2)
            if said is None:
                self.end = self.end or "gone"
                return text
            for entry in said:
                text += entry.text if entry.kind is not SaidKind.END else ""
                if entry.kind is SaidKind.END:
                    self.end = entry.text
            if said and said[-1].kind is not SaidKind.TEXT:
                return text
        raise AssertionError(f"no prompt within {ANSWER_S} s; so far:\n{text}")

    def type(self, line: str | None) -> str:
        """What is shown after a line."""
        assert self._halts.type(self.halt.number, line)
        return self.read()
