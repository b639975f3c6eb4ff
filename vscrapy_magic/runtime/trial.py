"""Owns how a child tries new code for a crawl that goes on: loads it, says so, and waits.

Runs in the main thread of a child, before its event loop. Beside it the child with the old code
works on. What is tried is all that a child makes before the spider is opened: source, settings,
spider, middlewares, pipelines and extensions. When every worker can, the new code is in force, and
this child, loaded as it is, takes part.
"""

import traceback
from collections.abc import Callable
from typing import Final

from vscrapy_magic.errors import StateError, StoreError, VscrapyError
from vscrapy_magic.runtime.frames import described, own_entries
from vscrapy_magic.store.codes import Codes, Standing
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import Phase

MASK: Final = "***"
LOOK_S: Final = 1.0  # between two looks, when nobody wakes this child


class NotTakenError(VscrapyError):
    """The code that this child tried is not to run: it ends, and the old code goes on."""


class Trial:
    """One offer, as the child that tries it sees it.

    Attributes:
        secrets: what is not shown.
    """

    def __init__(self, frontier: Frontier, order: ChildOrder, phase: Callable[[str], None]) -> None:
        self._frontier = frontier
        self._codes = Codes(frontier.store)
        self._order = order
        self._phase = phase
        self.secrets: tuple[str, ...] = ()

    def fail(self, exc: BaseException) -> bool:
        """The code cannot be loaded here; whether the store heard of it."""
        order, text = self._order, tidy(exc)
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        try:
            self._codes.cannot(order.crawl_id, order.code_version, order.worker, text)
        except StoreError:
            return False  # then the supervisor says so
        return True

    def wait(self) -> None:
        """The code is loaded: block until it is in force.

        Raises:
            NotTakenError: it was refused, or the crawl ends.
            StoreError: the store cannot be asked.
        """
        order = self._order
        self._phase(Phase.TRYING)
        try:
            standing = self._codes.can(
                order.crawl_id, order.code_version, order.worker, order.token
            )
            while not self._is_decided(standing):
                self._frontier.wait(order.token, LOOK_S)
                standing = self._codes.look(order.crawl_id, order.code_version)
        except StateError as exc:
            raise NotTakenError(str(exc)) from exc
        if standing.in_force < order.code_version:
            raise NotTakenError(
                f"Code version {order.code_version} was refused: {standing.by or '-'}"
            )

    def _is_decided(self, standing: Standing) -> bool:
        return (
            standing.in_force >= self._order.code_version
            or standing.offered != self._order.code_version
        )


def tidy(exc: BaseException) -> str:
    """A traceback of the user's own lines: `Cell In[3], line 12, in parse`."""
    if isinstance(exc, VscrapyError):
        return str(exc)
    lines = []
    for frame in described(own_entries(exc), hide=str, with_locals=False):
        lines.append(f"  {frame.file}, line {frame.line}, in {frame.function}")
        if frame.source:
            lines.append(f"    {frame.source}")
    head = ["Traceback (most recent call last):"] if lines else []
    return "\n".join([*head, *lines, "".join(traceback.format_exception_only(exc)).rstrip()])
