"""Owns this child's word on which leases it works on, in memory that outlives a crash.

Runs in the event loop of a child. One lease is marked as the one that it runs user code for; all
that were begun are listed, for a crash in a thread, which happens at a time of nobody's choosing.
Between two turns of the loop the mark is 0; `working_for` of the tracker sets it for what is called
at once, and `follow_loop` for what the loop calls later in the context of a lease. Without a
supervisor both are written to memory that nobody reads.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

from vscrapy_magic.store.pipes import Mark

_cells = memoryview(bytearray(Mark.BYTES)).cast("q")
_places: Final[dict[int, int]] = {}  # of leases that were begun
_free: Final = list(range(Mark.IN_FLIGHT_MAX, 0, -1))


def share(fd: int) -> None:
    """From now on mark where the supervisor can read it."""
    global _cells  # noqa: PLW0603 - one per process, as the memory is
    _cells = Mark(fd).cells


def swap(lease_id: int) -> int:
    """Mark a lease; the one that was marked before."""
    before: int = _cells[0]
    _cells[0] = lease_id
    return before


def begin(lease_id: int) -> None:
    """List a lease that is begun."""
    if _free:
        place = _places[lease_id] = _free.pop()
        _cells[place] = lease_id


def end(lease_id: int) -> None:
    """A lease has ended, if it was begun."""
    place = _places.pop(lease_id, None)
    if place is not None:
        _cells[place] = 0
        _free.append(place)


def follow_loop(lease_of: Callable[[contextvars.Context], int]) -> None:
    """Mark the lease of each callback of asyncio loops in this process while it runs.

    Touches `asyncio.Handle._run` and `_context`, because nothing public says in whose context a
    loop runs code; a Python without them marks less. A callback that ends the process by raising
    leaves its mark behind, on purpose.
    """
    handle: Any = asyncio.Handle
    plain = getattr(handle, "_run", None)
    if plain is None:
        return

    def run(self: Any) -> None:
        lease_id = lease_of(self._context)
        if not lease_id:
            plain(self)
            return
        _cells[0] = lease_id
        plain(self)
        _cells[0] = 0

    handle._run = run
