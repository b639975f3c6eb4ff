"""Owns the leases that this child holds and has not started; runs in its event loop.

Kept by downloader slot: a request is handed out when its slot has room, slot after slot in turn, so
that a slow site does not fill the downloader. What stays here can be given back.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from vscrapy_magic.runtime.tracker import Run


class Buffer:
    """Unstarted leases, oldest first within each slot."""

    def __init__(self) -> None:
        self._slots: OrderedDict[str, deque[Run]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, run: Run) -> None:
        self._slots.setdefault(run.lease.slot, deque()).append(run)
        self._size += 1

    def pop(self, has_room: Callable[[str], bool]) -> Run | None:
        """The next lease whose slot has room; None when there is none now."""
        for name in self._slots:
            if has_room(name):
                run = self._slots[name].popleft()
                self._size -= 1
                if self._slots[name]:
                    self._slots.move_to_end(name)
                else:
                    del self._slots[name]
                return run
        return None

    def by_slot(self) -> dict[str, int]:
        """How many leases there are of each slot."""
        return {name: len(runs) for name, runs in self._slots.items()}

    def take_back(self, count: int, keep: Callable[[str], bool]) -> list[Run]:
        """Up to `count` leases to be given back, newest first, without those of slots to keep."""
        taken: list[Run] = []
        for name in reversed(list(self._slots)):
            if keep(name):
                continue
            runs = self._slots[name]
            while runs and len(taken) < count:
                taken.append(runs.pop())
            if not runs:
                del self._slots[name]
        self._size -= len(taken)
        return taken

    def clear(self) -> list[Run]:
        """All leases, to be given back or forgotten."""
        return self.take_back(self._size, lambda _: False)
