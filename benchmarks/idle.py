"""Commands a second that idle processes send to Redis: `python -m benchmarks.idle`.

As MONITOR shows them (those inside scripts not counted), on a server of each case's own. The
keep-open crawl has nothing to do.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.measure import (
    SPIDERS,
    Cluster,
    cluster,
    conditions,
    end,
    median,
    options_from_line,
    place,
    table,
    wait_for,
)
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store.presence import Presence

SPIDER = SPIDERS / "steady.py"
PAGES = 60
TOP = 3  # commands named
SESSION = """
import sys, vscrapy_magic
session = vscrapy_magic.connect(sys.argv[1])
sys.stdin.read()
session.close()
"""


def rates(crew: Cluster, seconds: int) -> tuple[float, str]:
    """Commands a second over some seconds, and which ones; what scripts call is not counted."""
    heard: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    with crew.store.client.monitor() as monitor:
        while (left_s := ends - time.monotonic()) > 0:
            if monitor.connection.can_read(timeout=left_s):
                said = monitor.next_command()
                if said["client_type"] != "lua":
                    heard[said["command"].split()[0].upper()] += 1
    words = ", ".join(f"{name} {calls / seconds:.2f}" for name, calls in heard.most_common(TOP))
    return heard.total() / seconds, words


@contextmanager
def idle_workers(count: int) -> Iterator[Cluster]:
    with cluster(1, each=count) as crew:
        yield crew


@contextmanager
def idle_session() -> Iterator[Cluster]:
    with cluster(0) as crew:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION, crew.server.url], stdin=subprocess.PIPE
        )
        try:
            wait_for("the session is up", lambda: Presence(crew.store).sessions())
            time.sleep(1.0)  # its beacon comes up
            yield crew
        finally:
            assert process.stdin is not None
            process.stdin.close()
            end([process])


@contextmanager
def idle_crawl() -> Iterator[Cluster]:
    with (
        cluster(2) as crew,
        DemoSite(delay_ms=50) as site,
        Session.connect(crew.server.url, kind="benchmark") as session,
    ):
        crawl = place(
            session,
            SPIDER,
            *("-a", f"site={site.url}", "-a", f"pages={PAGES}", "--keep-open"),
            *("-s", "LOG_LEVEL=WARNING"),
        )
        wait_for("all pages have come", lambda: len(crawl.items) == PAGES)
        wait_for("both workers take part", lambda: len(crawl.view.members) == 2)
        yield crew
        crawl.stop()
        crawl.wait()


CASES: dict[str, tuple[Callable[[], AbstractContextManager[Cluster]], str]] = {
    "worker process, -n 1": (lambda: idle_workers(1), "<= 1"),
    "worker process, -n 4": (lambda: idle_workers(4), ""),
    "session with its beacon": (idle_session, "<= 1"),
    "keep-open crawl: sender, beacon, 2 workers, 2 parked children": (idle_crawl, ""),
}


def main() -> int:
    options = options_from_line(__doc__ or "", 1, seconds=20)
    found: dict[str, list[tuple[float, str]]] = {case: [] for case in CASES}
    for _ in range(options.rounds):
        for case, (prepared, _) in CASES.items():
            with prepared() as crew:
                found[case].append(rates(crew, options.seconds))
    rows = [
        [case, f"{median([rate for rate, _ in found[case]]):.2f}", found[case][-1][1], promise]
        for case, (_, promise) in CASES.items()
    ]
    print(f"Idle, {options.rounds} rounds of {options.seconds} s; {conditions()}")
    head = ["what", "commands/s", "most often, per s", "promised"]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
