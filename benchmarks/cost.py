"""CPU per page and calls per page, against plain Scrapy: `python -m benchmarks.cost`.

One worker, and two, against one Scrapy; the CPU of the site is not counted. Rounds alternate;
medians and ratios are printed.
"""

import sys
import tempfile
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
PAGES = 2000
LEVELS = ("INFO", "DEBUG")


def plain(site: DemoSite, folder: Path, level: str) -> tuple[float, float, int]:
    """CPU ms per page, pages per second, pages."""
    site.reset()
    ran = run(scrapy("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", level), folder)
    pages = site.stats()["requests"]
    return 1000 * ran.cpu_s / pages, pages / ran.wall_s, pages


def ours(
    site: DemoSite, folder: Path, level: str, crew: Cluster, workers: int
) -> tuple[float, float, float, float]:
    """CPU ms per page, pages per second, server CPU ms per page, round trips per page."""
    site.reset()
    before, server_before = cpu_of(crew.pids), crew.server_cpu_s()
    commands = crew.commands()
    ran = run(
        vscrapy(
            *("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", level),
            *("--redis", crew.server.url, "--workers", str(workers)),
        ),
        folder,
    )
    pages = site.stats()["requests"]
    server_s = crew.server_cpu_s() - server_before
    cpu_s = ran.cpu_s + cpu_of(crew.pids) - before + server_s
    calls = crew.commands() - commands
    return 1000 * cpu_s / pages, pages / ran.wall_s, 1000 * server_s / pages, calls / pages


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 5)
    rows = []
    with (
        tempfile.TemporaryDirectory() as name,
        DemoSite(pages=PAGES) as site,
        cluster(2) as crew,
    ):
        folder = Path(name)
        for level in LEVELS:
            local, one, two = [], [], []
            for _ in range(rounds):
                local.append(plain(site, folder, level))
                one.append(ours(site, folder, level, crew, 1))
                two.append(ours(site, folder, level, crew, 2))
            base = median([row[0] for row in local])
            speed = median([row[1] for row in local])
            rows.append([level, "scrapy", f"{base:.2f}", "1.00", f"{speed:.0f}", "", ""])
            for label, found in (("1 worker", one), ("2 workers", two)):
                cpu, pages_s, server, calls = (
                    median(column) for column in zip(*found, strict=True)
                )
                figures = (f"{cpu:.2f}", f"{cpu / base:.2f}", f"{pages_s:.0f}")
                rows.append([level, label, *figures, f"{server:.3f}", f"{calls:.3f}"])
    head = ["level", "what", "CPU ms/page", "ratio", "pages/s", "server ms/page", "calls/page"]
    print(f"{PAGES} book pages, {rounds} rounds, medians")
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
