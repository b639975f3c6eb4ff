"""Side by side with scrapy-redis 0.9.1 on the same site: `python -m benchmarks.peers`.

Two processes each: two workers, and two `scrapy runspider` with scrapy-redis' scheduler, dupe
filter and item pipeline, from a virtual environment that is made here (`--venv FOLDER` keeps it).
The same unmodified spider, rounds alternate; what a page costs is the difference between a large
crawl and a small one, so that starting processes is not counted. Then, on a site whose pages take
100 ms, one of the two is killed at half of the pages: how many items are missing in the end?

Its server keeps nothing on disk, ours every write. It ends when it is idle for a moment, so the
second process starts when the first has work for both, and its queue is kept (SCHEDULER_PERSIST).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.measure import (
    UP_WITHIN_S,
    Cluster,
    cluster,
    conditions,
    cpu_of,
    median,
    run,
    scrapy,
    settle,
    start_worker,
    table,
    vscrapy,
    wait_for,
)
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.presence import Presence

SPIDER = Path(__file__).parent.parent / "tests" / "spiders" / "books.py"
PAGES = 1000
FEW = 100  # of the small crawl
SLOW_MS = 100  # of each page of the site on which one is killed
WORKERS = 2
BEGUN_PAGES = 5  # of the first process, before the second one starts
PEER = "scrapy-redis==0.9.1"
SAME = ("scrapy", "twisted", "redis", "hiredis")  # in the versions that we measure with
ITEMS = "books:items"
SETTINGS = {
    "SCHEDULER": "scrapy_redis.scheduler.Scheduler",
    "DUPEFILTER_CLASS": "scrapy_redis.dupefilter.RFPDupeFilter",
    "SCHEDULER_PERSIST": "True",
    "ITEM_PIPELINES": '{"scrapy_redis.pipelines.RedisPipeline": 300}',
}


@dataclass(frozen=True)
class Cost:
    """What one crawl took; CPU is that of all processes and the server, the site excluded."""

    pages: int
    wall_s: float
    cpu_s: float
    server_s: float
    trips: int

    def beyond(self, small: "Cost") -> "PageCost":
        pages = self.pages - small.pages
        return PageCost(
            cpu_ms=1000 * (self.cpu_s - small.cpu_s) / pages,
            server_ms=1000 * (self.server_s - small.server_s) / pages,
            round_trips=(self.trips - small.trips) / pages,
            pages_s=pages / (self.wall_s - small.wall_s),
        )


@dataclass(frozen=True)
class PageCost:
    """What a page takes, without what starting takes."""

    cpu_ms: float
    server_ms: float
    round_trips: float
    pages_s: float


@dataclass(frozen=True)
class Loss:
    """Items after one of two processes was killed."""

    lost: int
    twice: int


def round_trips(crew: Cluster) -> int:
    """Reads of the server from its clients: a pipeline or a script is one."""
    return int(crew.store.client.info("stats")["total_reads_processed"])


@contextmanager
def environment(kept: str) -> Iterator[Path]:
    """The interpreter of a virtual environment with scrapy-redis."""
    with tempfile.TemporaryDirectory(prefix="vs-peer-") as name:
        folder = Path(kept).absolute() if kept else Path(name)
        python = folder / "bin" / "python"
        if not python.exists():
            wanted = [f"{name}=={metadata.version(name)}" for name in SAME]
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", PEER, *wanted], check=True)
        yield python


class Peer:
    """Two processes with scrapy-redis."""

    def __init__(self, python: Path, crew: Cluster) -> None:
        self._python = python
        self._crew = crew

    def begin(self, site: DemoSite) -> list[subprocess.Popen[bytes]]:
        """Both processes, at work."""
        site.reset()
        self._crew.store.client.flushall()
        first = self._start(site)
        wait_for("pages of scrapy-redis", lambda: site.stats()["requests"] > BEGUN_PAGES)
        return [first, self._start(site)]

    def _start(self, site: DemoSite) -> subprocess.Popen[bytes]:
        settings = {**SETTINGS, "REDIS_URL": self._crew.server.url}
        options = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
        return subprocess.Popen(
            [
                *(str(self._python), "-m", "scrapy", "runspider", str(SPIDER)),
                *("-a", f"site={site.url}", "-L", "INFO", *options),
            ],
            cwd=self._crew.folder,
            stderr=subprocess.DEVNULL,
        )

    def cost(self, site: DemoSite) -> Cost:
        server_s, trips = self._crew.server_cpu_s(), round_trips(self._crew)
        before, begun = _children_s(), time.monotonic()
        for process in self.begin(site):
            process.wait()
        wall_s, cpu_s = time.monotonic() - begun, _children_s() - before
        server_s = self._crew.server_cpu_s() - server_s
        trips = round_trips(self._crew) - trips
        return Cost(site.stats()["requests"], wall_s, cpu_s + server_s, server_s, trips)

    def loss(self, site: DemoSite, expected: int) -> Loss:
        processes = self.begin(site)
        wait_for("half of the pages", lambda: site.stats()["requests"] > expected / 2)
        processes[1].kill()
        for process in processes:
            process.wait()
        return _loss(expected, map(json.loads, self._crew.store.client.lrange(ITEMS, 0, -1)))


class Ours:
    """Two workers, and `vscrapy runspider`."""

    def __init__(self, crew: Cluster) -> None:
        self._crew = crew
        self._number = 0
        self._out = crew.folder / "out.jsonl"

    def _command(self, site: DemoSite) -> list[str]:
        return vscrapy(
            *("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", "INFO"),
            *("--redis", self._crew.server.url, "--workers", str(WORKERS), "-O", str(self._out)),
        )

    def cost(self, site: DemoSite) -> Cost:
        site.reset()
        server_s, trips = self._crew.server_cpu_s(), round_trips(self._crew)
        before = cpu_of(self._crew.pids)
        ran = run(self._command(site), self._crew.folder)
        server_s = self._crew.server_cpu_s() - server_s
        cpu_s = ran.cpu_s + cpu_of(self._crew.pids) - before + server_s
        trips = round_trips(self._crew) - trips
        return Cost(site.stats()["requests"], ran.wall_s, cpu_s, server_s, trips)

    def loss(self, site: DemoSite, expected: int) -> Loss:
        """One worker is killed; another one takes its place afterwards, for the next round."""
        site.reset()
        command = self._command(site)
        with subprocess.Popen(command, cwd=self._crew.folder, stderr=subprocess.DEVNULL) as running:
            wait_for("half of the pages", lambda: site.stats()["requests"] > expected / 2)
            doomed = self._crew.workers[-1]
            doomed.kill()
            doomed.wait()
            running.wait(UP_WITHIN_S)
        self._replace()
        return _loss(expected, map(json.loads, self._out.read_text().splitlines()))

    def _replace(self) -> None:
        self._number += 1
        name = f"new{self._number}"
        worker = start_worker(self._crew.server.url, name, self._crew.folder)
        self._crew.workers[-1] = worker
        presence = Presence(self._crew.store)
        wait_for(
            "the new worker is up",
            lambda: any(view.record.name == name for view in presence.workers()),
        )
        settle([worker])


def _children_s() -> float:
    """CPU seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _loss(expected: int, items: Iterable[dict[str, object]]) -> Loss:
    """How many of the expected items are missing, and how many came more than once."""
    paths = Counter(str(item["path"]) for item in items)
    return Loss(expected - len(paths), paths.total() - len(paths))


def items_expected(site: DemoSite, folder: Path) -> int:
    """Items of a plain Scrapy's crawl."""
    out = folder / "plain.jsonl"
    run(
        scrapy("runspider", str(SPIDER), "-a", f"site={site.url}", "-L", "INFO", "-O", str(out)),
        folder,
    )
    return len(out.read_text().splitlines())


def row(
    label: str, costs: Sequence[PageCost], base: Sequence[PageCost], losses: Sequence[Loss]
) -> list[str]:
    """One line of the table; ratios are to scrapy-redis in the same rounds."""
    cpu_ms = median([cost.cpu_ms for cost in costs])
    pages_s = median([cost.pages_s for cost in costs])
    pairs = list(zip(costs, base, strict=True))
    return [
        label,
        f"{cpu_ms:.2f}",
        f"{median([one.cpu_ms / other.cpu_ms for one, other in pairs]):.2f}",
        f"{median([cost.server_ms for cost in costs]):.3f}",
        f"{median([cost.round_trips for cost in costs]):.3f}",
        f"{pages_s:.0f}",
        f"{median([one.pages_s / other.pages_s for one, other in pairs]):.2f}",
        f"{median([loss.lost for loss in losses]):.0f} ({max(loss.lost for loss in losses)})",
        f"{median([loss.twice for loss in losses]):.0f} ({max(loss.twice for loss in losses)})",
    ]


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--rounds", type=int, default=5)
    parse.add_argument("--pages", type=int, default=PAGES)
    parse.add_argument("--venv", default="", help="folder of an environment to keep")
    options = parse.parse_args()
    costs: dict[str, list[PageCost]] = {"ours": [], "theirs": []}
    losses: dict[str, list[Loss]] = {"ours": [], "theirs": []}
    with (
        environment(options.venv) as python,
        DemoSite(pages=options.pages) as site,
        DemoSite(pages=FEW) as small,
        DemoSite(pages=options.pages, delay_ms=SLOW_MS) as slow,
        cluster(WORKERS) as crew,
        cluster(0, persist=False) as bare,
    ):
        expected = items_expected(site, crew.folder)
        sides: dict[str, Ours | Peer] = {"ours": Ours(crew), "theirs": Peer(python, bare)}
        for _ in range(options.rounds):
            for name, side in sides.items():
                few = side.cost(small)
                costs[name].append(side.cost(site).beyond(few))
            for name, side in sides.items():
                losses[name].append(side.loss(slow, expected))
    rows = [
        row(label, costs[whose], costs["theirs"], losses[whose])
        for label, whose in ((f"vscrapy, {WORKERS} workers", "ours"), (f"{PEER}, 2", "theirs"))
    ]
    print(f"{expected} items, {options.rounds} alternating rounds, medians; {conditions()}")
    head = [
        *("what", "CPU ms/page", "ratio", "of it server", "round trips/page", "pages/s", "ratio"),
        *("items lost after kill -9 (worst)", "items twice (worst)"),
    ]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
