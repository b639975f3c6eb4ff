"""How fast edited code reaches all workers of a running crawl: `python -m benchmarks.patch`.

A page with the new code is a log line `Crawled (200)` of a worker after its line `Code version`, by
the time of the child. Pages in flight end within 0.3 s.
"""

import logging
import sys
import time
from collections.abc import Sequence

from benchmarks.measure import (
    SPIDERS,
    cluster,
    conditions,
    median,
    place,
    rounds_from_line,
    table,
    wait_for,
)
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import file_order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.views import CrawlView

SPIDER = SPIDERS / "steady.py"
WORKERS = 4
PAGE_MS = 300
PAGES = 100_000  # more than any round gets to
BEGUN_PAGES = 50
ROWS = (
    ("patch -> all workers have loaded it, and it is in force", ""),
    ("in force -> first page with the new code on any worker", ""),
    ("in force -> first page with the new code on all workers", "< 1.5 s"),
)


class Pages:
    """When each worker got its first page with some version of the code, in seconds (epoch)."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        self.first_s: dict[tuple[int, str], float] = {}

    def lines(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            if line.text.startswith("Code version "):
                self._running[line.worker] = int(line.text.split()[2])
            elif line.level == logging.DEBUG and line.text.startswith("Crawled (200)"):
                version = self._running.get(line.worker, 1)
                self.first_s.setdefault((version, line.worker), line.time_ms / 1000)

    def of(self, version: int) -> list[float]:
        """Of a version, one for each worker that has got a page."""
        return sorted(s for (number, _), s in self.first_s.items() if number == version)

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""


def patched(crawl: Crawl, pages: Pages) -> list[float]:
    """Seconds of one patch, as the rows say."""
    order = file_order(CrawlOptions(target=str(SPIDER), args=crawl.view.spec.args))
    begun_s = time.time()
    done = crawl.patch(order)
    in_force_s = begun_s + done.seconds
    wait_for("pages of all workers", lambda: len(pages.of(done.version)) == WORKERS)
    found = pages.of(done.version)
    return [done.seconds, found[0] - in_force_s, found[-1] - in_force_s]


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 10)
    with (
        cluster(WORKERS) as crew,
        DemoSite(delay_ms=PAGE_MS) as site,
        Session.connect(crew.server.url, kind="benchmark") as session,
    ):
        pages = Pages()
        crawl = place(session, SPIDER, "-a", f"site={site.url}", "-a", f"pages={PAGES}")
        crawl.listen(pages)
        wait_for("all workers work", lambda: len(pages.of(1)) == WORKERS)
        wait_for("the crawl runs", lambda: crawl.view.totals.pages > BEGUN_PAGES)
        found = [patched(crawl, pages) for _ in range(rounds)]
        crawl.stop(now=True)
        crawl.wait()
    rows = [
        [what, f"{median(times):.3f}", f"{max(times):.3f}", promise]
        for (what, promise), times in zip(ROWS, zip(*found, strict=True), strict=True)
    ]
    print(f"Patching, {WORKERS} workers, {rounds} rounds; {conditions()}")
    print(table(["what", "median s", "worst s", "promised"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
