"""CPU per page and calls per page, against plain Scrapy: `python -m benchmarks.cost`.

One worker against one Scrapy, and two against two that run at once. What a page costs is the
difference between a large crawl and a small one, so that starting processes is not counted. The CPU
of all our processes (sender, worker, zygote, children) and of the server counts, that of the site
does not. `wide` has a full queue all the time; `books` finds its pages one after the other, so its
queue is nearly empty, which is the worst case. Rounds alternate; medians and ratios are printed.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import (
    Cluster,
    children_cpu_s,
    cluster,
    cpu_of,
    median,
    rounds_from_line,
    run,
    scrapy,
    table,
    vscrapy,
)
from vscrapy_magic.demo.site import DemoSite

TESTS = Path(__file__).parent.parent / "tests" / "spiders"
SPIDERS = {
    "wide": Path(__file__).parent / "spiders" / "wide.py",
    "books": TESTS / "books.py",
}
PAGES = 3000
FEW = 100
LEVELS = ("INFO", "DEBUG")


@dataclass(frozen=True)
class Cost:
    """What one crawl took."""

    pages: int
    wall_s: float
    cpu_s: float
    server_s: float = 0.0
    calls: int = 0

    def beyond(self, small: "Cost") -> tuple[float, float, float, float]:
        """CPU ms, server ms and calls per page, and pages/s, without what starting takes."""
        pages = self.pages - small.pages
        return (
            1000 * (self.cpu_s - small.cpu_s) / pages,
            1000 * (self.server_s - small.server_s) / pages,
            (self.calls - small.calls) / pages,
            pages / (self.wall_s - small.wall_s),
        )


@dataclass(frozen=True)
class Job:
    """One spider on sites of two sizes."""

    spider: str
    level: str
    sites: dict[int, DemoSite]
    folder: Path

    def words(self, pages: int) -> list[str]:
        path, site = str(SPIDERS[self.spider]), self.sites[pages]
        return [path, "-a", f"site={site.url}", "-a", f"pages={pages}", "-L", self.level]

    def plain(self, pages: int, processes: int) -> Cost:
        """Independent Scrapys at once, each with all pages."""
        self.sites[pages].reset()
        begun, cpu = time.perf_counter(), children_cpu_s()
        running = [
            subprocess.Popen(
                scrapy("runspider", *self.words(pages)),
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(processes)
        ]
        for process in running:
            process.wait()
        wall_s = time.perf_counter() - begun
        return Cost(self.sites[pages].stats()["requests"], wall_s, children_cpu_s() - cpu)

    def ours(self, pages: int, crew: Cluster, workers: int) -> Cost:
        self.sites[pages].reset()
        cpu, server, calls = cpu_of(crew.pids), crew.server_cpu_s(), crew.round_trips()
        where = ("--redis", crew.server.url, "--workers", str(workers))
        ran = run(vscrapy("runspider", *self.words(pages), *where), self.folder)
        server_s = crew.server_cpu_s() - server
        cpu_s = ran.cpu_s + cpu_of(crew.pids) - cpu + server_s
        count = self.sites[pages].stats()["requests"]
        return Cost(count, ran.wall_s, cpu_s, server_s, crew.round_trips() - calls)


def compared(job: Job, crew: Cluster, rounds: int) -> list[list[str]]:
    """Rows for one and two workers, each against as many Scrapys."""
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for _ in range(rounds):
        for count in (1, 2):
            local = [job.plain(pages, count) for pages in (PAGES, FEW)]
            found.setdefault(("scrapy", count), []).append(local[0].beyond(local[1]))
            costs = [job.ours(pages, crew, count) for pages in (PAGES, FEW)]
            found.setdefault(("workers", count), []).append(costs[0].beyond(costs[1]))
    rows = []
    for (what, count), each in found.items():
        cpu, server, calls, pages_s = (median(column) for column in zip(*each, strict=True))
        base = found["scrapy", count]
        ratio = median([row[0] / one[0] for row, one in zip(each, base, strict=True)])
        speed = median([row[3] / one[3] for row, one in zip(each, base, strict=True)])
        figures = [f"{cpu:.2f}", f"{ratio:.2f}", f"{pages_s:.0f}", f"{speed:.2f}"]
        label = [job.spider, job.level, f"{what}: {count}"]
        rows.append([*label, *figures, f"{server:.3f}", f"{calls:.3f}"])
    return rows


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 5)
    rows = []
    with (
        tempfile.TemporaryDirectory() as name,
        DemoSite(pages=PAGES) as large,
        DemoSite(pages=FEW) as small,
        cluster(2) as crew,
    ):
        for spider in SPIDERS:
            for level in LEVELS:
                job = Job(spider, level, {PAGES: large, FEW: small}, Path(name))
                rows += compared(job, crew, rounds)
    head = ["spider", "level", "what", "CPU ms/page", "ratio", "pages/s", "ratio"]
    print(f"{PAGES} pages less {FEW}, {rounds} rounds, medians")
    print(table([*head, "server ms/page", "calls/page"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
