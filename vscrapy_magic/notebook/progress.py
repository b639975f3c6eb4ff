"""Owns the words in which a crawl's state is shown above its lines; runs in the kernel."""

from collections import deque
from typing import Final

from vscrapy_magic.sender.account import recorded
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

RATE_S: Final = 5.0  # over which pages per second are counted
RATE_SPAN_MIN_S: Final = 0.5  # shorter spans say nothing
STOPPABLE: Final = frozenset(
    {
        CrawlState.QUEUED,
        CrawlState.STARTING,
        CrawlState.RUNNING,
        CrawlState.WAITING,
        CrawlState.STOPPING,
    }
)
_MINUTE_S: Final = 60


class Rate:
    """Pages per second over the last few seconds; not thread-safe."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def per_s(self, pages: int, now_s: float) -> float:
        """Note a count and answer the rate; 0 while it is not known."""
        self._seen.append((now_s, pages))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= RATE_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        if now_s - since_s < RATE_SPAN_MIN_S:
            return 0.0
        return (pages - before) / (now_s - since_s)


def elapsed_s(view: CrawlView, now_ms: int) -> float:
    """Seconds that a crawl has run, or has waited to run."""
    end_ms = view.ended_ms if view.over and view.ended_ms else now_ms
    return max(0, end_ms - (view.started_ms or view.created_ms)) / 1000


def progress(view: CrawlView, rate_per_s: float, now_ms: int) -> str:
    """One line: `running: 3 workers, 120 pages, 96 items, 2 errors, 40 queued, 8 s`.

    Of a crawl that waits it also says since when: `waiting for 12 s: 0 workers, ...`.
    """
    totals, parts = view.totals, []
    if not view.over:
        parts.append(count(len(view.members), "worker"))
    parts += [count(totals.pages, "page"), count(totals.items, "item")]
    if totals.errors or view.over:
        parts.append(count(totals.errors, "error"))
    if totals.failures:
        parts.append(count(totals.failures, "failure"))
    if totals.queued and not view.over:
        parts.append(f"{totals.queued:,} queued")
    if rate_per_s > 0 and not view.over:
        parts.append(f"{rate_per_s:,.1f} pages/s")
    parts.append(duration(elapsed_s(view, now_ms), exact=view.over))
    since = ""
    if view.state is CrawlState.WAITING and view.since_ms:
        since = f" for {duration(max(0, now_ms - view.since_ms) / 1000)}"
    return f"{ending(view)}{since}: {', '.join(parts)}"


def ending(view: CrawlView) -> str:
    """The state, with Scrapy's reason where it says more: `finished (closespider_itemcount)`."""
    reason = view.close_reason
    return f"{view.state} ({reason})" if reason and reason != view.state else str(view.state)


def notices(view: CrawlView) -> list[str]:
    """What a user should know of the state: what it waits for, why it ended, what limits it."""
    found = [f"{view.state}: {view.why}"] if view.why else []
    if view.limited_by and not view.over:
        setting = view.limited_by.split(" ", 1)[0]
        found.append(f"limited by {view.limited_by} (%vset {setting}=... changes it)")
    if view.over and (said := recorded(view)):
        found.append(said)
    return found


def halted(view: CrawlView, *, blocking: bool) -> list[str]:
    """Where the crawl stands in the debugger; of one that no cell waits for, what to do."""
    if not view.halted_at:
        return []
    more = f", and {view.halts - 1} more" if view.halts > 1 else ""
    return [f"{view.halted_at}{more}" + ("" if blocking else " (waiting: %vbreak)")]


def count(number: int, noun: str) -> str:
    """`1 page`, `1,200 pages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float, *, exact: bool = False) -> str:
    """`8 s`, `2 min 5 s`, `3 h 4 min`; `exact`: tenths of a second below a minute."""
    if exact and seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
