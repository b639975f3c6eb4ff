"""Owns this child's word on which lease it runs user code for, in memory that outlives a crash.

Runs in the event loop of a child. Between two turns of the loop the mark is 0; `working_for` of the
tracker sets it for what is called at once, and `follow_loop` for what the loop calls later in the
context of a lease. Without a supervisor the mark is written to memory that nobody reads.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from vscrapy_magic.store.pipes import Mark

_cells = memoryview(bytearray(Mark.BYTES)).cast("q")


def share(fd: int) -> None:
    """From now on mark where the supervisor can read it."""
    global _cells  # noqa: PLW0603 - one per process, as the memory is
    _cells = Mark(fd).cells


def swap(lease_id: int) -> int:
    """Mark a lease; the one that was marked before."""
    before: int = _cells[0]
    _cells[0] = lease_id
    return before


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
