"""Owns the responses that code of a lease awaited itself, kept until its lease ends.

Runs in the event loop of a child. Who asked for one is told by the stack: an `await` in a callback,
a pipeline or a middleware has its caller on it. Nothing is known where it was asked for in a task
of its own; then it was the spider, or, before the response of the lease was there, a downloader
middleware.
"""

import enum
import sys
from collections.abc import Sequence
from typing import Any, Final

from scrapy.http import Response

RESPONSES_MAX: Final = 20  # of one lease; the first ones, because code is run again from its start
BYTES_MAX: Final = 1024 * 1024  # of their bodies
_FRAMES_MAX: Final = 100  # of the stack are looked at


class Asker(enum.Enum):
    """Whose code awaited a response."""

    DOWNLOADER_MIDDLEWARE = enum.auto()
    PIPELINE = enum.auto()
    SPIDER = enum.auto()  # or a spider middleware


_BY_MODULE: Final = {
    "scrapy.core.downloader.middleware": Asker.DOWNLOADER_MIDDLEWARE,
    "scrapy.pipelines": Asker.PIPELINE,
    "scrapy.core.spidermw": Asker.SPIDER,
    "scrapy.core.scraper": Asker.SPIDER,
}


def asker() -> Asker | None:
    """Who asks for a response right now; None when the stack does not tell."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES_MAX):
        found = _BY_MODULE.get(frame.f_globals.get("__name__", ""))
        if found is not None:
            return found
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


class Inline:
    """Those of one lease."""

    def __init__(self) -> None:
        self._kept: list[tuple[Asker, Response]] = []
        self._bytes = 0

    def keep(self, result: Any, who: Asker) -> Any:
        """Keep a response if there is room; returns what it got."""
        if isinstance(result, Response) and len(self._kept) < RESPONSES_MAX:
            size = len(result.body)
            if self._bytes + size <= BYTES_MAX:
                self._bytes += size
                self._kept.append((who, result))
        return result

    def of(self, who: Asker) -> Sequence[Response]:
        """Responses that one of them awaited, in order."""
        return [response for asked, response in self._kept if asked is who]
