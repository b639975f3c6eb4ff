"""Owns the waiting of those who bring outputs faster than steps carry them away.

Runs in the event loop of a child. `start()` waits, and so do callbacks: what one response brings
(half a million links of a sitemap) must not pile up in memory, where a request is twenty times as
big as in the frontier.
"""

from collections.abc import Callable
from typing import Final

from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

from vscrapy_magic.runtime.tracker import PART_BYTES, PART_OUTPUTS, Run

_PARTS_AHEAD: Final = 2  # one goes with the next step while the next one is made


class Room:
    """Who waits until outputs were committed.

    Args:
        poke: sees to it that a step goes soon.
    """

    def __init__(self, poke: Callable[[], None]) -> None:
        self._poke = poke
        self._waiting: list[Deferred[None]] = []

    async def wait(self) -> None:
        """Until something was committed, or is void; look again then whether there is room."""
        made: Deferred[None] = Deferred()
        self._waiting.append(made)
        self._poke()
        await maybe_deferred_to_future(made)

    async def wait_for(self, run: Run | None) -> None:
        """Until a lease has room for what its callback brings next."""
        while run is not None and run.live and _is_full(run):
            await self.wait()

    def made(self) -> None:
        """Outputs were committed, or will never be."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)


def _is_full(run: Run) -> bool:
    unit = run.unit
    return len(unit.outputs) >= _PARTS_AHEAD * PART_OUTPUTS or (
        unit.bytes >= _PARTS_AHEAD * PART_BYTES
    )
