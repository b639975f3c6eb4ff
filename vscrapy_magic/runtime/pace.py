"""Owns the numbers that say how often a child steps and how many leases it asks for.

Runs in the event loop of a child. Seldom enough that Redis hardly notices (a step for some sixty
pages at full speed), often enough that nobody waits: a child whose buffer runs empty, or whose
outputs others wait for, does not wait for the clock.
"""

from collections.abc import Callable
from math import ceil
from pathlib import Path
from time import monotonic, thread_time
from typing import Final

PAGES_PER_STEP: Final = 60  # aimed at; more saves round trips and makes others wait longer
INTERVAL_MIN_S: Final = 0.05
INTERVAL_MAX_S: Final = 0.3
SPACING_S: Final = 0.02  # between two steps of a child that has something to do already
WANT_MAX: Final = 500
BURST: Final = 5  # steps that go without waiting after a quiet time: the first item is one of them
UNLIMITED: Final = 64  # requests at once where CONCURRENT_REQUESTS = 0 sets no limit
SOON_S: Final = 0.2  # a lease that would start later is given back to a child that has nothing
ANSWER_S: Final = 0.02  # a guess at how long a step takes, with a margin
_PREFETCH_MIN: Final = 2
_PREFETCH_INTERVALS: Final = 1.5  # work for so many intervals is kept ready
_MEMORY: Final = 0.5  # weight of the newest measurement of the rate
BUSY: Final = 0.85  # share of its time; a loop that works so much has no use for more leases yet
_SCHEDSTAT: Final = Path("/proc/self/schedstat")


def _load_s() -> float:
    """Seconds that the main thread has worked, or would have if it had got a processor.

    Linux counts both for the first thread of a process (`proc(5)`: nanoseconds on a processor, and
    in the queue for one). Elsewhere only the work counts, so a loaded machine looks idle, which
    costs some steps and nothing else.
    """
    try:
        running_ns, waiting_ns, _ = _SCHEDSTAT.read_bytes().split()
    except (OSError, ValueError):
        return thread_time()
    return (int(running_ns) + int(waiting_ns)) / 1e9


class Pace:
    """How fast this child works, and what follows for its steps.

    Attributes:
        rate: leases ended per second.
        load: share of the time in which the event loop had something to do.
    """

    def __init__(self, concurrency: int, load_s: Callable[[], float] = _load_s) -> None:
        """Begin to measure.

        Args:
            load_s: says how long the event loop's thread has been busy until now.
        """
        self.concurrency = concurrency or UNLIMITED
        self.rate = 0.0
        self.load = 0.0
        self._load_s = load_s
        self._loaded = load_s()
        self._counted = 0
        self._since = monotonic()
        self._paid_until = 0.0

    def stepped(self, now: float) -> None:
        """A step was sent; each takes `SPACING_S` of what may be spent."""
        self._paid_until = max(self._paid_until, now) + SPACING_S

    @property
    def spaced_at(self) -> float:
        """When the next step may go that is not urgent: a few at once, in the long run spaced."""
        return self._paid_until - (BURST - 1) * SPACING_S

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
        loaded = self._load_s()
        self.load = (loaded - self._loaded) / elapsed
        self._counted, self._since, self._loaded = completions, now, loaded

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

    def is_low(self, active: int, buffered: int) -> bool:
        """Whether there will be nothing to start about when a step that goes now is answered.

        A loop that is busy all the time has no use for more before it has worked through what is
        under way; one that waits for the site wants to send whenever a request has come back.
        """
        at_hand = buffered + (active if self.load >= BUSY else 0)
        return at_hand <= self.rate * ANSWER_S

    def spare(self, buffered: int) -> int:
        """Leases that will not be started soon."""
        return max(0, buffered - int(self.rate * SOON_S))
