"""Owns the numbers that say how often a child steps and how many leases it asks for.

Runs in the event loop of a child. Seldom enough that Redis hardly notices (a step for some sixty
pages at full speed), often enough that nobody waits: a child whose buffer runs empty, or whose
outputs others wait for, does not wait for the clock.
"""

from math import ceil
from time import monotonic
from typing import Final

PAGES_PER_STEP: Final = 60  # aimed at; more saves round trips and makes others wait longer
INTERVAL_MIN_S: Final = 0.05
INTERVAL_MAX_S: Final = 0.3
SPACING_S: Final = 0.02  # between two steps of a child that has something to do already
WANT_MAX: Final = 500
UNLIMITED: Final = 64  # requests at once where CONCURRENT_REQUESTS = 0 sets no limit
SOON_S: Final = 0.2  # a lease that would start later is given back to a child that has nothing
ANSWER_S: Final = 0.02  # a guess at how long a step takes, with a margin
_PREFETCH_MIN: Final = 2
_PREFETCH_INTERVALS: Final = 1.5  # work for so many intervals is kept ready
_MEMORY: Final = 0.5  # weight of the newest measurement of the rate


class Pace:
    """How fast this child works, and what follows for its steps."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency or UNLIMITED
        self.rate = 0.0  # leases ended per second
        self._counted = 0
        self._since = monotonic()

    def limit(self, concurrency: int) -> None:
        """Work on so many requests at once from now on; 0 means no limit."""
        self.concurrency = concurrency or UNLIMITED

    def measure(self, completions: int, now: float) -> None:
        """Take note of how many leases have ended since the beginning."""
        elapsed = now - self._since
        if elapsed < INTERVAL_MIN_S:
            return
        rate = (completions - self._counted) / elapsed
        self.rate += _MEMORY * (rate - self.rate)
        self._counted, self._since = completions, now

    @property
    def interval_s(self) -> float:
        """Between two steps of a child that nobody waits for."""
        if self.rate <= 0:
            return INTERVAL_MIN_S
        return min(INTERVAL_MAX_S, max(INTERVAL_MIN_S, PAGES_PER_STEP / self.rate))

    @property
    def prefetch(self) -> int:
        """Leases to hold beyond what can be sent at once.

        None for a child that sends one request at a time: its user wants Scrapy's order.
        """
        if self.concurrency == 1:
            return 0
        return _PREFETCH_MIN + ceil(self.rate * self.interval_s * _PREFETCH_INTERVALS)

    def want(self, active: int, buffered: int) -> int:
        """Leases to ask for."""
        return max(0, min(WANT_MAX, self.concurrency + self.prefetch - active - buffered))

    def is_low(self, buffered: int) -> bool:
        """Whether the buffer will be empty about when a step that goes now is answered."""
        return buffered <= self.rate * ANSWER_S

    def spare(self, buffered: int) -> int:
        """Leases that will not be started soon."""
        return max(0, buffered - int(self.rate * SOON_S))
