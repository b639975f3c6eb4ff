"""How fast a worker joins a crawl, and a pushed URL is visited: `python -m benchmarks.join`.

A page of a worker is known by the time of its log line `Crawled (200)`, in the child; a pushed URL
by when the site got it.
"""

import logging
import sys
import time
from collections.abc import Sequence

from benchmarks.measure import (
    SPIDERS,
    Cluster,
    cluster,
    conditions,
    end,
    median,
    place,
    rounds_from_line,
    start_worker,
    table,
    wait_for,
)
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.views import CrawlView

SPIDER = SPIDERS / "steady.py"
PAGE_MS = 20  # a part of what is measured
PAGES = 100_000  # more than any round gets to
BEGUN_PAGES = 100
LOOK_S = 0.002
ROWS = (
    ("new worker: process started -> known", ""),
    ("new worker: known -> its first page", "< 0.3 s"),
    ("new worker: process started -> its first page", ""),
    ("warm worker let in (workers=2) -> its first page", "< 0.3 s"),
    ("pushed URL -> request at the site", "< 0.1 s"),
)


class Pages:
    """When each worker got its first page, in seconds since the epoch."""

    def __init__(self) -> None:
        self.first_s: dict[str, float] = {}

    def lines(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            if line.level == logging.DEBUG and line.text.startswith("Crawled (200)"):
                self.first_s.setdefault(line.worker, line.time_ms / 1000)

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""


def known_s(crew: Cluster, name: str) -> float:
    """When a worker's record appeared (epoch)."""
    presence = Presence(crew.store)
    while all(view.record.name != name for view in presence.workers()):
        time.sleep(LOOK_S)
    return time.time()


def joined(crew: Cluster, site: DemoSite, session: Session, number: int) -> list[float]:
    """Seconds of a new worker: to be known, from there to its first page, both."""
    pages, name = Pages(), f"late{number}"
    options = ("-a", f"site={site.url}", "-a", f"pages={PAGES}")
    crawl = place(session, SPIDER, *options)
    crawl.listen(pages)
    wait_for("the crawl runs", lambda: crawl.view.totals.pages > BEGUN_PAGES)
    begun_s = time.time()
    worker = start_worker(crew.server.url, name, crew.folder)
    try:
        appeared_s = known_s(crew, name)
        wait_for("a page of the new worker", lambda: name in pages.first_s)
        first_s = pages.first_s[name]
        crawl.stop(now=True)
        crawl.wait()
    finally:
        end([worker])
    return [appeared_s - begun_s, first_s - appeared_s, first_s - begun_s]


def let_in(site: DemoSite, session: Session) -> float:
    """Seconds from letting a second, warm worker take part to its first page."""
    pages = Pages()
    options = ("-a", f"site={site.url}", "-a", f"pages={PAGES}", "--workers", "1")
    with_one = place(session, SPIDER, *options)
    with_one.listen(pages)
    wait_for("the crawl runs", lambda: with_one.view.totals.pages > BEGUN_PAGES)
    begun_s = time.time()
    with_one.set(workers=2)
    wait_for("a page of the second worker", lambda: len(pages.first_s) == 2)
    took_s = max(pages.first_s.values()) - begun_s
    with_one.stop(now=True)
    with_one.wait()
    return took_s


def pushed(site: DemoSite, session: Session, number: int) -> float:
    """Seconds from a push to a crawl that has nothing to do to the request at the site."""
    options = ("-a", f"site={site.url}", "-a", "pages=5", "--keep-open")
    crawl = place(session, SPIDER, *options)
    wait_for("all pages have come", lambda: len(crawl.items) == 5)
    time.sleep(0.3)  # its children park
    path = f"/book/3?pushed={number}"
    begun_s = time.monotonic()
    crawl.push(site.url + path)
    wait_for("the pushed page", lambda: path in site.hits())
    came_s = next(came_s for came_s, seen in reversed(site.log()) if seen == path)
    crawl.stop()
    crawl.wait()
    return came_s - begun_s


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 10)
    found = []
    with (
        cluster(1) as one,
        DemoSite(delay_ms=PAGE_MS) as site,
        Session.connect(one.server.url, kind="benchmark") as session,
    ):
        first = [joined(one, site, session, number) for number in range(rounds)]
    with (
        cluster(2) as two,
        DemoSite(delay_ms=PAGE_MS) as site,
        Session.connect(two.server.url, kind="benchmark") as session,
    ):
        for number, times in enumerate(first):
            found.append([*times, let_in(site, session), pushed(site, session, number)])
    rows = [
        [what, f"{median(times):.3f}", f"{max(times):.3f}", promise]
        for (what, promise), times in zip(ROWS, zip(*found, strict=True), strict=True)
    ]
    print(f"Joining, {rounds} rounds; {conditions()}")
    print(table(["what", "median s", "worst s", "promised"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
