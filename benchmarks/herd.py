"""Many workers on one server: no herds: `python -m benchmarks.herd`.

`benchmarks/crowd.py` simulates the workers: real supervisors, and children that speak as real ones
do but crawl nothing. For each number of workers, on a server of its own: nothing to do; a crawl for
one worker while the others stand by; a crawl for all, and its stop; a crawl that one site limits to
8 requests at once; a crawl of ten pages. The server's slow log keeps every command of 1 ms and
more: the longest one is told with its name. On a busy machine that includes waiting for a
processor; so the longest of each round is taken, and of the rounds the shortest.
"""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from benchmarks.measure import (
    conditions,
    end,
    median,
    options_from_line,
    table,
    wait_for,
    workplace,
)
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.keys import CrawlId, crawl_key
from vscrapy_magic.store.logs import Logs
from vscrapy_magic.store.messages import Bundle, CrawlSpec, CrawlState
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.server import EmbeddedServer

COUNTS = (10, 50, 200)
PROCESSES = 2  # of simulated workers
PAGE_MS = 500
FAN = 10  # links on a page
SITES = 100
AT_ONCE = 16  # requests at once at one site
PAGES_PER_WORKER = 40
ENDLESS = 1_000_000
LIMITED_AT_ONCE = 8
LIMITED_PAGES = 400
LIMITED_PAGE_MS = 100
FEW = 10
FULL_SWING_S = 2.0
SETTLE_S = 3.0  # after the workers have come up
SLOW_US = 1000  # commands that take as long are looked at
LOOK_S = 0.002
CRAWL_S = 300.0  # no crawl here takes longer
ROWS = {
    "idle: commands/s of a worker": "<= 1",
    "idle: commands/s in all": "",
    "idle: CPU of the server, %": "",
    "standing by: commands/s of a worker": "<= 1",
    "standing by: CPU of the server, %": "",
    "created -> first lease, ms": "",
    "created -> all take part, s": "",
    "CPU of the server in full swing, %": "",
    "round trips per page": "",
    "CPU ms of the server per page": "",
    "wakes of children per commit": "",
    "stop -> the last has left, s": "< 1",
    "one site, 8 at once: round trips per page": "",
    "one site, 8 at once: CPU ms of the server per page": "",
    "one site, 8 at once: pages/s": "",
    "crawl of 10 pages: children": "",
    "longest command, ms": "< 20",
}


@dataclass
class Crowd:
    """So many simulated workers, and the server that they use."""

    store: Store
    server: EmbeddedServer
    count: int
    found: dict[str, float] = field(default_factory=dict)

    def cpu_s(self) -> float:
        info = self.store.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def reads(self) -> int:
        """Round trips of all clients."""
        return int(self.store.client.info("stats")["total_reads_processed"])

    def child_wakes(self) -> int:
        """Wake-ups of children so far; one is one LPUSH, and of workers there are few."""
        return int(
            self.store.client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"]
        )

    def meta(self, crawl_id: CrawlId, *names: str) -> list[int]:
        values = self.store.client.hmget(crawl_key(crawl_id, "meta"), *names)
        return [int(value or 0) for value in values]

    def members(self, crawl_id: CrawlId) -> int:
        return int(self.store.client.zcard(crawl_key(crawl_id, "members")))


@contextmanager
def crowd(count: int) -> Iterator[Crowd]:
    with (
        workplace() as folder,
        EmbeddedServer(folder / "server") as server,
        Store.connect(server.url) as store,
    ):
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.crowd", server.url, f"c{number}-"),
                    str(count // PROCESSES),
                ],
                stdin=subprocess.PIPE,
            )
            for number in range(PROCESSES)
        ]
        try:
            store.client.config_set("slowlog-log-slower-than", SLOW_US)
            store.client.config_set("slowlog-max-len", 10_000)
            wait_for("the crowd is up", lambda: len(Presence(store).workers()) == count)
            time.sleep(SETTLE_S)
            yield Crowd(store, server, count)
        finally:
            end(processes)


def order(store: Store, **args: int) -> CrawlId:
    """A crawl of a tree of pages, as a sender places it."""
    workers = args.pop("workers", 0)
    args = {"pages": ENDLESS, "page_ms": PAGE_MS, "fan": FAN, "sites": SITES, **args}
    args.setdefault("limit", AT_ONCE)
    spec = CrawlSpec(
        crawl_id=new_crawl_id(),
        spider="crowd",
        bundle="none",
        args={name: str(value) for name, value in args.items()},
        workers=workers,
    )
    placement = Placement(store)
    placement.create(spec, placement.survey(spec.bundle), Bundle(files={}, entry=""))
    return spec.crawl_id


def kill(crew: Crowd, crawl_id: CrawlId) -> None:
    Crawls(crew.store).kill(crawl_id)
    wait_for("slots are free", lambda: not used(crew))


def used(crew: Crowd) -> int:
    return sum(view.record.used for view in Presence(crew.store).workers())


class Commands(threading.Thread):
    """Commands that clients send in some seconds; those inside scripts are not counted."""

    def __init__(self, crew: Crowd, seconds: float) -> None:
        super().__init__()
        self._crew = crew
        self._seconds = seconds
        self.heard: Counter[str] = Counter()
        self.start()
        self.join()

    def run(self) -> None:
        ends = time.monotonic() + self._seconds
        with self._crew.store.client.monitor() as monitor:
            while (left_s := ends - time.monotonic()) > 0:
                if monitor.connection.can_read(timeout=left_s):
                    said = monitor.next_command()
                    if said["client_type"] != "lua":
                        self.heard[said["command"].split()[0].upper()] += 1

    @property
    def per_s(self) -> float:
        return self.heard.total() / self._seconds


def cpu_percent(crew: Crowd, seconds: float) -> float:
    """CPU of the server over some seconds."""
    before, begun = crew.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return 100 * (crew.cpu_s() - before) / (time.monotonic() - begun)


def idle(crew: Crowd, seconds: float) -> None:
    per_s = Commands(crew, seconds).per_s
    crew.found["idle: commands/s of a worker"] = per_s / crew.count
    crew.found["idle: commands/s in all"] = per_s
    crew.found["idle: CPU of the server, %"] = cpu_percent(crew, seconds)


def standing_by(crew: Crowd, seconds: float) -> None:
    """One worker crawls slowly; the others could, and are not needed."""
    crawl_id = order(crew.store, workers=1, page_ms=2000)
    wait_for("it crawls", lambda: crew.meta(crawl_id, "pages")[0])
    time.sleep(SETTLE_S)
    per_s = Commands(crew, seconds).per_s
    crew.found["standing by: commands/s of a worker"] = per_s / crew.count
    crew.found["standing by: CPU of the server, %"] = cpu_percent(crew, seconds)
    kill(crew, crawl_id)


def whole(crew: Crowd) -> None:
    """A crawl for all of them, from its beginning to its end."""
    pages = PAGES_PER_WORKER * crew.count
    cpu_s, reads = crew.cpu_s(), crew.reads()
    crawl_id = order(crew.store, pages=pages)
    began, most = time.monotonic(), 0
    while not Crawls(crew.store).view(crawl_id, named=False).over:
        most = max(most, crew.members(crawl_id))
        if time.monotonic() - began > CRAWL_S:
            sys.exit(f"a crawl hangs: {crew.meta(crawl_id, 'pages', 'queued', 'leased')}")
        time.sleep(0.05)
    crew.found["round trips per page"] = (crew.reads() - reads) / pages
    crew.found["CPU ms of the server per page"] = 1000 * (crew.cpu_s() - cpu_s) / pages


def stopped(crew: Crowd) -> None:
    """A crawl that all take part in, and its end by a user."""
    crawl_id = order(crew.store)
    began = time.monotonic()
    first_s = None
    while crew.members(crawl_id) < crew.count:
        if first_s is None and crew.meta(crawl_id, "lease_no")[0]:
            first_s = time.monotonic() - began
        if time.monotonic() - began > CRAWL_S:
            sys.exit(f"only {crew.members(crawl_id)} take part")
        time.sleep(LOOK_S)
    crew.found["created -> all take part, s"] = time.monotonic() - began
    created_ms, started_ms = crew.meta(crawl_id, "created_ms", "started_ms")
    crew.found["created -> first lease, ms"] = started_ms - created_ms
    time.sleep(FULL_SWING_S)
    wakes, (commits,) = crew.child_wakes(), crew.meta(crawl_id, "commit_no")
    crew.found["CPU of the server in full swing, %"] = cpu_percent(crew, FULL_SWING_S)
    commits = crew.meta(crawl_id, "commit_no")[0] - commits
    crew.found["wakes of children per commit"] = (crew.child_wakes() - wakes) / max(1, commits)
    began = time.monotonic()
    Crawls(crew.store).stop(crawl_id)
    wait_for("all have left", lambda: not crew.members(crawl_id))
    crew.found["stop -> the last has left, s"] = time.monotonic() - began
    view = Crawls(crew.store).view(crawl_id, named=False)
    if view.state is not CrawlState.STOPPED:
        sys.exit(f"a stopped crawl is {view.state}")
    wait_for("slots are free", lambda: not used(crew))


def limited(crew: Crowd) -> None:
    """Nearly all children wait, because one site bears few requests at once."""
    pages = LIMITED_PAGES
    fields = {"sites": 1, "limit": LIMITED_AT_ONCE, "page_ms": LIMITED_PAGE_MS}
    crawl_id = order(crew.store, pages=ENDLESS, fan=FAN, **fields)
    wait_for("it is in full swing", lambda: crew.meta(crawl_id, "pages")[0] > pages, CRAWL_S)
    cpu_s, reads, began = crew.cpu_s(), crew.reads(), time.monotonic()
    (first,) = crew.meta(crawl_id, "pages")
    wait_for("more pages", lambda: crew.meta(crawl_id, "pages")[0] > first + pages, CRAWL_S)
    took_s, count = time.monotonic() - began, crew.meta(crawl_id, "pages")[0] - first
    what = "one site, 8 at once: "
    crew.found[f"{what}round trips per page"] = (crew.reads() - reads) / count
    crew.found[f"{what}CPU ms of the server per page"] = 1000 * (crew.cpu_s() - cpu_s) / count
    crew.found[f"{what}pages/s"] = count / took_s
    kill(crew, crawl_id)


def small(crew: Crowd) -> None:
    """Ten pages: each child says in the log that it has started."""
    crawl_id = order(crew.store, pages=FEW)
    wait_for("ten pages", lambda: Crawls(crew.store).view(crawl_id, named=False).over)
    wait_for("slots are free", lambda: not used(crew))
    lines, _ = Logs(crew.store).read(crawl_id, "0-0")
    crew.found["crawl of 10 pages: children"] = sum("a child starts" in x.text for x in lines)


def longest(crew: Crowd) -> str:
    """The longest command so far; names a script by its file."""
    folder = resources.files("vscrapy_magic.store").joinpath("lua")
    names = [path.name.removesuffix(".lua") for path in folder.iterdir()]
    scripts = {load_script(name).sha1: name for name in names}
    slowest: dict[str, float] = {}
    for entry in crew.store.client.slowlog_get(10_000):
        words: list[Any] = entry["command"].split()
        name = words[0].decode()
        if name.upper() == "EVALSHA":
            name = scripts.get(words[1].decode(), "a script")
        slowest[name] = max(slowest.get(name, 0.0), entry["duration"] / 1000)
    if not slowest:
        return f"< {SLOW_US / 1000:.0f}"
    name = max(slowest, key=lambda each: slowest[each])
    return f"{slowest[name]:.1f} ({name})"


def one_round(count: int, seconds: float) -> tuple[dict[str, float], str]:
    with crowd(count) as crew:
        idle(crew, seconds)
        standing_by(crew, seconds)
        stopped(crew)
        whole(crew)
        limited(crew)
        small(crew)
        return crew.found, longest(crew)


def main() -> int:
    options = options_from_line(__doc__ or "", 1, seconds=10, most=COUNTS[-1])
    counts = [count for count in COUNTS if count <= options.most]
    found: dict[int, list[tuple[dict[str, float], str]]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            found[count].append(one_round(count, options.seconds))
    rows = []
    for what, promise in ROWS.items():
        row: list[object] = [what]
        for count in counts:
            if what.startswith("longest"):
                row.append(", ".join(longest for _, longest in found[count]))
            else:
                row.append(f"{median([figures[what] for figures, _ in found[count]]):.3g}")
        rows.append([*row, promise])
    print(f"Herds, {options.rounds} rounds; {conditions()}")
    print(table(["what", *(f"{count} workers" for count in counts), "promised"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
