"""Owns how long a crawl waits for its next child on a worker where the last one died.

Used by the supervisor's loop. It doubles with each death, and begins anew with what shows that the
next child may fare better.
"""

from collections import Counter
from typing import Final

from vscrapy_magic.store.keys import CrawlId, WorkerName

AFTER_S: Final = 0.5  # the first rest
MOST_S: Final = 30.0

Place = tuple[WorkerName, CrawlId]


class Rests:
    """Deaths in a row, by worker and crawl."""

    def __init__(self) -> None:
        self._deaths: Counter[Place] = Counter()
        self._until: dict[Place, float] = {}

    def begin(self, place: Place, now: float) -> None:
        """A child died there, or could not be started: start none for a while."""
        pause = min(MOST_S, AFTER_S * 2 ** self._deaths[place])
        self._deaths[place] += 1
        self._until[place] = now + pause

    def forgive(self, place: Place) -> None:
        """The next rest there is the first one again."""
        self._deaths.pop(place, None)

    def deaths(self, place: Place) -> int:
        """In a row."""
        return self._deaths[place]

    def places(self, now: float) -> frozenset[Place]:
        """Where no child is to be started now."""
        self._until = {place: at for place, at in self._until.items() if at > now}
        return frozenset(self._until)
