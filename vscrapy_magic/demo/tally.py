"""Owns what the demo site remembers of its visitors: hits per path, their times, requests at once.

Runs in the demo site's process. Tests read it at `/_hits`, `/_log` and `/_stats`; `/_reset`
forgets it.
"""

import time
from collections import Counter, deque

from vscrapy_magic.demo.answers import JSON, NotFoundError
from vscrapy_magic.demo.connection import Reply, Request
from vscrapy_magic.demo.feeds import json_bytes

HITS_BOUND = 1_000_000  # paths counted one by one; further ones are counted together
OTHER_HITS = "(other)"
LOG_BOUND = 200_000  # last requests whose time is kept
FAILURES_BOUND = 100_000  # flaky pages whose failures are counted; then all start again


class Tally:
    """Counts every request but those to pages under `/_`."""

    def __init__(self) -> None:
        self._hits: Counter[str] = Counter()
        self._log: deque[tuple[float, str]] = deque(maxlen=LOG_BOUND)
        self._failures: Counter[str] = Counter()
        self._in_flight = 0
        self._max_in_flight = 0

    def begin(self, target: str) -> None:
        known = target in self._hits or len(self._hits) < HITS_BOUND
        self._hits[target if known else OTHER_HITS] += 1
        self._log.append((time.monotonic(), target))
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)

    def end(self) -> None:
        self._in_flight -= 1

    def fail(self, target: str, times: int) -> bool:
        """Whether this hit of a flaky page is one of its first `times`, which fail."""
        if self._failures[target] >= times:
            return False
        if len(self._failures) > FAILURES_BOUND:
            self._failures.clear()
        self._failures[target] += 1
        return True

    def reset(self) -> None:
        self._hits.clear()
        self._log.clear()
        self._failures.clear()
        self._max_in_flight = self._in_flight

    def told(self, request: Request) -> Reply:
        match request.segments:
            case ("_hits",):
                return Reply(json_bytes(self._hits), content_type=JSON)
            case ("_log",):
                return Reply(json_bytes(list(self._log)), content_type=JSON)
            case ("_stats",):
                return Reply(json_bytes(self._stats()), content_type=JSON)
            case ("_reset",):
                self.reset()
                return Reply(b"{}", content_type=JSON)
        raise NotFoundError

    def _stats(self) -> dict[str, int]:
        return {
            "requests": self._hits.total(),
            "in_flight": self._in_flight,
            "max_in_flight": self._max_in_flight,
        }
