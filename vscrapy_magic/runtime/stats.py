"""Owns a child's stats collector: changes go to the lease that made them, reads are crawl-wide.

Runs in the event loop of a child (and, as in Scrapy, wherever user code calls it). What a child
counts is seen by itself at once, and by others once the lease is committed; a lost lease takes back
what it had counted. Reads give the crawl's values as of the last reply that brought them, and what
was counted here since.
"""

import pprint
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from scrapy.crawler import Crawler
from scrapy.statscollectors import MemoryStatsCollector

from vscrapy_magic.runtime.tracker import Counts, Tracker
from vscrapy_magic.store.messages import StatDelta, StatKind
from vscrapy_magic.store.values import STAT_VALUE_MARK, Codec, read_stat

# Facts of one process or of its clock: they would mean nothing as stats of the crawl.
_LOCAL_KEYS: Final = frozenset(
    {
        *("start_time", "finish_time", "finish_reason", "elapsed_time_seconds"),
        *("items_per_minute", "responses_per_minute"),
    }
)
_LOCAL_PREFIXES: Final = ("memusage/", "memdebug/")
_codec: Final = Codec(opaque=True)

Number = int | float


def is_local(key: str) -> bool:
    """Whether a stat stays in its process."""
    return key in _LOCAL_KEYS or key.startswith(_LOCAL_PREFIXES)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def deltas(counts: Counts) -> Iterator[StatDelta]:
    """Changes as a step carries them."""
    for key, value in counts.set.items():
        data = _number(value) if _is_number(value) else STAT_VALUE_MARK + _codec.encode(value)  # type: ignore[arg-type]
        yield StatDelta(StatKind.SET, key, data)
    for kind, changes in (
        (StatKind.ADD, counts.add),
        (StatKind.MAX, counts.max),
        (StatKind.MIN, counts.min),
    ):
        for key, number in changes.items():
            yield StatDelta(kind, key, _number(number))


def _number(value: Number) -> bytes:
    return repr(value).encode()


class CrawlStats(MemoryStatsCollector):
    """Stats of the whole crawl, as far as they are known here."""

    # Scrapy's base (from 2.14) looks up each attribute in Python, to warn of an argument that went
    # out of use: 7 % of a page's time, with what is done here for each count.
    __getattribute__ = object.__getattribute__

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._tracker: Tracker = crawler.tracker  # type: ignore[attr-defined]
        # Numbers that other children added, and values that the crawl had when it was asked.
        self._elsewhere: dict[str, Number] = {}
        self._committed: dict[str, Number] = {}
        self._added: set[str] = set()
        self._muted: frozenset[str] = frozenset()
        self.asked = False  # whether somebody has read stats: then steps bring them

    def inc_value(
        self,
        key: str,
        count: int = 1,
        start: int = 0,
        spider: Any = None,  # noqa: ARG002
    ) -> None:
        if key in self._muted:
            return
        unit = self._tracker.unit()
        if unit is None:
            return
        own = self._stats
        own[key] = own.setdefault(key, start) + count
        if not is_local(key):
            self._added.add(key)
            add = unit.counts.add
            add[key] = add.get(key, 0) + count

    def max_value(self, key: str, value: Any, spider: Any = None) -> None:  # noqa: ARG002
        self._extreme(key, value, StatKind.MAX)

    def min_value(self, key: str, value: Any, spider: Any = None) -> None:  # noqa: ARG002
        self._extreme(key, value, StatKind.MIN)

    def _extreme(self, key: str, value: Any, kind: StatKind) -> None:
        unit = self._tracker.unit()
        if unit is None:
            return
        choose = max if kind is StatKind.MAX else min
        if key in self._elsewhere and key not in self._added:
            self._stats.setdefault(key, self._elsewhere.pop(key))
        old = self._stats.get(key, value)
        new = self._stats[key] = choose(old, value)
        if is_local(key) or (new == old and old is not value):
            return
        if _is_number(new):
            changes = unit.counts.max if kind is StatKind.MAX else unit.counts.min
            changes[key] = choose(changes.get(key, new), new)
        else:
            unit.counts.set[key] = new

    def set_value(self, key: str, value: Any, spider: Any = None) -> None:  # noqa: ARG002
        unit = self._tracker.unit()
        if unit is None:
            return
        self._stats[key] = value
        self._elsewhere.pop(key, None)
        if not is_local(key):
            unit.counts.add.pop(key, None)
            unit.counts.set[key] = value

    def set_stats(self, stats: dict[str, Any], spider: Any = None) -> None:  # noqa: ARG002
        for key, value in stats.items():
            self.set_value(key, value)

    def clear_stats(self, spider: Any = None) -> None:  # noqa: ARG002
        self._stats.clear()
        self._elsewhere.clear()

    def get_value(self, key: str, default: Any = None, spider: Any = None) -> Any:  # noqa: ARG002
        self.asked = True
        own = self._stats.get(key)
        if own is None:
            return self._elsewhere.get(key, default)
        return own + self._elsewhere[key] if key in self._elsewhere else own

    def get_stats(self, spider: Any = None) -> dict[str, Any]:  # noqa: ARG002
        self.asked = True
        return {key: self.get_value(key) for key in {*self._stats, *self._elsewhere}}

    @contextmanager
    def muted(self, *keys: str) -> Iterator[None]:
        """Do not count these here: the frontier has counted them."""
        before, self._muted = self._muted, self._muted | frozenset(keys)
        try:
            yield
        finally:
            self._muted = before

    def committed(self, counts: Counts) -> None:
        """A step with these changes was accepted."""
        committed = self._committed
        for key, value in counts.add.items():
            committed[key] = committed.get(key, 0) + value

    def take_back(self, counts: Counts) -> None:
        """The lease that counted these was lost."""
        for key, value in counts.add.items():
            if key in self._stats:
                self._stats[key] -= value

    def learn(self, crawl: dict[str, bytes]) -> None:
        """The crawl's values, as of a step that was just accepted."""
        for key, data in crawl.items():
            value = read_stat(data)
            own = self._stats.get(key)
            if not _is_number(value) or (own is not None and not _is_number(own)):
                self._stats.setdefault(key, value)
            elif key in self._added:
                self._elsewhere[key] = value - self._committed.get(key, 0)
            elif own is None:
                self._elsewhere[key] = value

    def __str__(self) -> str:
        asked = self.asked
        text = pprint.pformat(self.get_stats())
        self.asked = asked
        return text
