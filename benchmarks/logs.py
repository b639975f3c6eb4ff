"""Whether every log line arrives, and how late: `python -m benchmarks.logs`.

Four workers log at a steady rate, and a listener in the sender notes when each line comes. A line
is lost when it was neither shown nor counted in one that says how many were dropped.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.measure import (
    SPIDERS,
    Cluster,
    cluster,
    conditions,
    median,
    options_from_line,
    percentile,
    place,
    table,
)
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView

SPIDER = SPIDERS / "ticking.py"
WORKERS = 4
RATES = (2_000, 20_000)  # lines per second, all workers together
PAGES_PER_S = 12  # slow ones for all workers, so that they stay a little longer than they log
PROMISED = {2_000: "0 lost, lag < 500", 20_000: "0 lost, lag < 500"}
LOGGED = re.compile(r"logged (\d+)")


class Clock:
    """Notes lines as they come."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []
        self.seconds: Counter[int] = Counter()
        self.shown = self.dropped = self.logged = self.children = 0

    def lines(self, lines: Sequence[LogLine]) -> None:
        now_ms = time.time() * 1000
        for line in lines:
            self.dropped += line.dropped
            if line.logger != "ticking":
                continue
            if found := LOGGED.match(line.text):
                self.logged += int(found[1])
                self.children += 1
                continue
            self.shown += 1
            self.lags_ms.append(now_ms - line.time_ms)
            self.seconds[line.time_ms // 1000] += 1

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""


def listened(crew: Cluster, site: DemoSite, rate: int, seconds: int) -> Clock:
    """One crawl of so many seconds whose workers log at this rate."""
    clock = Clock()
    with Session.connect(crew.server.url, kind="benchmark") as session:
        crawl = place(
            session,
            SPIDER,
            *("-a", f"site={site.url}", "-a", f"rate={rate / WORKERS}"),
            *("-a", f"seconds={seconds}", "-a", f"pages={PAGES_PER_S * seconds}"),
            *("-s", "LOG_LEVEL=INFO", "-s", "CONCURRENT_REQUESTS=2", "--workers", str(WORKERS)),
        )
        crawl.listen(clock)
        crawl.wait()
    return clock


def main() -> int:
    options = options_from_line(__doc__ or "", 3, seconds=10)
    found: dict[int, list[Clock]] = {rate: [] for rate in RATES}
    with cluster(WORKERS) as crew, DemoSite() as site:
        for _ in range(options.rounds):
            for rate, clocks in found.items():
                clocks.append(listened(crew, site, rate, options.seconds))
    rows = []
    for rate, clocks in found.items():
        logged = sum(clock.logged for clock in clocks)
        shown = sum(clock.shown for clock in clocks)
        dropped = sum(clock.dropped for clock in clocks)
        lags = [percentile(clock.lags_ms, 0.99) for clock in clocks]
        peak = median([max(clock.seconds.values(), default=0) for clock in clocks])
        children = min(clock.children for clock in clocks)
        counts = (children, f"{peak:.0f}", logged, shown, dropped, logged - shown - dropped)
        rows.append([rate, *counts, f"{median(lags):.0f}", f"{max(lags):.0f}", PROMISED[rate]])
    print(f"Log lines, {options.rounds} rounds of {options.seconds} s; {conditions()}")
    head = [
        *("lines/s asked for", "children", "peak lines/s", "logged", "shown", "counted", "lost"),
        *("lag p99 ms, median", "worst", "promised"),
    ]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
