"""CPU per page and calls per page, against plain Scrapy: `python -m benchmarks.cost`.

One worker, and two, against one Scrapy. What a page costs is the difference between a large crawl
and a small one, so that starting processes is not counted. The CPU of all our processes (sender,
worker, zygote, children) and of the server counts, that of the site does not. Rounds alternate;
medians and ratios are printed.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import (
    Cluster,
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

SPIDER = Path(__file__).parent.parent / "tests" / "spiders" / "books.py"
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


def plain(site: DemoSite, folder: Path, level: str) -> Cost:
    site.reset()
    ran = run(scrapy("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", level), folder)
    return Cost(site.stats()["requests"], ran.wall_s, ran.cpu_s)


def ours(site: DemoSite, folder: Path, level: str, crew: Cluster, workers: int) -> Cost:
    site.reset()
    cpu, server, calls = cpu_of(crew.pids), crew.server_cpu_s(), crew.round_trips()
    ran = run(
        vscrapy(
            *("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", level),
            *("--redis", crew.server.url, "--workers", str(workers)),
        ),
        folder,
    )
    server_s = crew.server_cpu_s() - server
    cpu_s = ran.cpu_s + cpu_of(crew.pids) - cpu + server_s
    pages = site.stats()["requests"]
    return Cost(pages, ran.wall_s, cpu_s, server_s, crew.round_trips() - calls)


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 5)
    rows = []
    with (
        tempfile.TemporaryDirectory() as name,
        DemoSite(pages=PAGES) as large,
        DemoSite(pages=FEW) as small,
        cluster(2) as crew,
    ):
        folder = Path(name)
        for level in LEVELS:
            found: dict[str, list[tuple[float, ...]]] = {}
            for _ in range(rounds):
                local = plain(large, folder, level).beyond(plain(small, folder, level))
                found.setdefault("scrapy", []).append(local)
                for workers in (1, 2):
                    costs = [ours(site, folder, level, crew, workers) for site in (large, small)]
                    found.setdefault(f"workers: {workers}", []).append(costs[0].beyond(costs[1]))
            base = [row[0] for row in found["scrapy"]]
            for label, each in found.items():
                cpu, server, calls, pages_s = (median(column) for column in zip(*each, strict=True))
                ratio = median([row[0] / one for row, one in zip(each, base, strict=True)])
                figures = (f"{cpu:.2f}", f"{ratio:.2f}", f"{pages_s:.0f}")
                rows.append([level, label, *figures, f"{server:.3f}", f"{calls:.3f}"])
    head = ["level", "what", "CPU ms/page", "ratio", "pages/s", "server ms/page", "calls/page"]
    print(f"{PAGES} book pages less {FEW}, {rounds} rounds, medians")
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
