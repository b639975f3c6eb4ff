"""Owns the time from the start of a worker's process until children can be started.

Runs in the main thread, before the supervisor's loop. Until it is over nobody knows of the workers:
a crawl is not given to a process that would first import Scrapy for a second.
"""

import os
import selectors
import time
from typing import Final

from vscrapy_magic.worker.source import Source

TEND_S: Final = 1.0  # between two looks after what failed, or takes too long
_POKE: Final = b"g"
_READ_BYTES: Final = 1024


class Arrival:
    """Waits for a source of children to be ready; a context manager.

    Args:
        parent_fd: a pipe whose end means that all must end at once; None for none.
    """

    def __init__(self, source: Source, parent_fd: int | None) -> None:
        self._source = source
        self._parent_fd = parent_fd
        self._poked, self._poke = os.pipe()
        os.set_blocking(self._poke, False)
        self.is_told_to_go = False

    def go(self) -> None:
        """Do not wait any more; safe to call from a signal handler."""
        self.is_told_to_go = True
        os.write(self._poke, _POKE)

    def wait(self) -> bool:
        """Block until children can be started; False when told to go, or the parent has ended."""
        while not (self._source.ready or self.is_told_to_go):
            self._source.tend(time.monotonic())
            self._listen()
        return not self.is_told_to_go

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in self._source.sockets():
                selector.register(fd, selectors.EVENT_READ, self._source)
            for end in (self._poked, self._parent_fd):
                if end is not None:
                    selector.register(end, selectors.EVENT_READ, None)
            for key, _ in selector.select(TEND_S):
                if key.data is self._source:
                    self._source.heard(key.fd)
                elif not os.read(key.fd, _READ_BYTES):
                    self.is_told_to_go = True

    def close(self) -> None:
        os.close(self._poke)
        os.close(self._poked)

    def __enter__(self) -> "Arrival":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
