"""Says in which way a spider was not the same on workers as in plain Scrapy."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from tests.parity.features import Facts, Feature
from tests.parity.running import Ran

SHOWN: Final = 5
# Facts of one process or of its clock, and of how requests were queued: docs/differences.md.
_LOCAL: Final = re.compile(
    r"(start|finish)_time|elapsed_time_seconds|(items|responses)_per_minute|mem(usage|debug)/.*|"
    r"log_count/(DEBUG|INFO|WARNING)|scheduler/(en|de)queued/(memory|disk)|feedexport/.*|"
    r"finish_reason"
)
# Bytes of headers differ with the number of digits of a port, and with the order of cookies.
_BYTES: Final = re.compile(r"downloader/(request|response)_bytes")


def problems(feature: Feature, plain: Ran, ours: Ran) -> list[str]:
    """What is not equal; empty when nothing is."""
    if plain.trouble or ours.trouble:
        return [f"plain: {plain.trouble}" * bool(plain.trouble), ours.trouble]
    found = _unexpected(feature.facts, plain, ours)
    if not feature.facts.loose:
        found += _unequal_outcomes(feature.facts, plain, ours)
    return found


def _unexpected(facts: Facts, plain: Ran, ours: Ran) -> list[str]:
    """What is wrong even where crawls get differently far."""
    found = []
    if ours.reason != plain.reason:
        found.append(f"finish reason {ours.reason!r}, not {plain.reason!r}")
    if not ours.pinned.startswith(facts.pinned) or bool(facts.pinned) != bool(ours.pinned):
        found.append(f"pinned: {ours.pinned!r}, not {facts.pinned!r}")
    if facts.said and not any(facts.said in line for line in ours.warnings):
        found.append(f"no WARNING says {facts.said!r}: {ours.warnings[:SHOWN]}")
    # Scrapy 2.19 goes beyond the limit itself: it takes a whole queue before it counts the first.
    if facts.most and ours.most > max(plain.most, facts.most):
        found.append(f"{ours.most} requests at once, and {plain.most}, not {facts.most} or less")
    if len(ours.items) < facts.floor:
        found.append(f"{len(ours.items)} items, not {facts.floor} or more")
    return found


def _unequal_outcomes(facts: Facts, plain: Ran, ours: Ran) -> list[str]:
    found = []
    if not facts.feeds:  # these say it all, as exporters write it
        found += _unequal("item", Counter(plain.items), Counter(ours.items))
    found += _unequal_stats(plain.stats, ours.stats, re.compile(facts.differs or "(?!)"))
    if facts.hits:
        found += _unequal("hit", Counter(plain.hits), Counter(ours.hits))
    if facts.files:
        found += _unequal("file", Counter(plain.files.items()), Counter(ours.files.items()))
    for name in sorted({*plain.feeds, *ours.feeds}):
        if _lines(plain.feeds.get(name)) != _lines(ours.feeds.get(name)):
            found.append(f"{name} has other lines: {ours.feeds.get(name)!r:.300}")
    return found


def _unequal_stats(
    plain: Mapping[str, str], ours: Mapping[str, str], differs: re.Pattern[str]
) -> list[str]:
    stats = [_compared(each, differs) for each in (plain, ours)]
    return [
        f"{name} = {stats[1].get(name)}, not {stats[0].get(name)}"
        for name in sorted({*stats[0], *stats[1]})
        if not _same(name, *(each.get(name) for each in stats))
    ]


def _lines(text: str | None) -> object:
    """A feed, whatever the order of its items is; None when there is none."""
    return None if text is None else sorted(line.rstrip(",") for line in text.splitlines())


def _compared(stats: Mapping[str, str], differs: re.Pattern[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in stats.items()
        if not (_LOCAL.fullmatch(name) or differs.fullmatch(name))
    }


def _same(name: str, one: str | None, other: str | None) -> bool:
    if one is not None and other is not None and _BYTES.fullmatch(name):
        return abs(int(one) - int(other)) <= int(one) * 0.02
    return one == other


def _unequal(noun: str, plain: Counter[object], ours: Counter[object]) -> list[str]:
    missing, more = plain - ours, ours - plain
    found = []
    if missing:
        found.append(f"{missing.total()} {noun}s are missing: {list(missing)[:SHOWN]}")
    if more:
        found.append(f"{more.total()} {noun}s are too many: {list(more)[:SHOWN]}")
    return found
