"""How fast a crawl stops with its kernel: `python -m benchmarks.stop`.

Real kernels, two workers, a site whose pages take 100 ms. An interrupt, and SIGKILL for the kernel:
seconds from the signal to the last request at the site, and until all slots are free again.
"""

import sys
import time
from contextlib import closing
from pathlib import Path

from benchmarks.measure import (
    SPIDERS,
    Cluster,
    cluster,
    conditions,
    last_hit_s,
    median,
    rounds_from_line,
    table,
    wait_for,
)
from tests.kernels import Kernel
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.presence import Presence

SPIDER = SPIDERS / "steady.py"
PAGE_MS = 100
PAGES = 100_000  # more than any round gets to
BEGUN_PAGES = 100  # at the site, before the signal
QUIET_S = 1.5  # after slots are free: a request that still comes is seen
ROWS = (
    ("interrupt -> last request", "<= 1 s"),
    ("interrupt -> the cell returns", ""),
    ("interrupt -> slots free", ""),
    ("kernel killed -> last request", "<= 2 s"),
    ("kernel killed -> slots free", "<= 5 s"),
)


def used(crew: Cluster) -> int:
    """Slots in use."""
    return sum(view.record.used for view in Presence(crew.store).workers())


def begin(kernel: Kernel, site: DemoSite, crew: Cluster) -> str:
    """A crawl that is in full swing on both workers; the id of its cell."""
    site.reset()
    kernel.run("%load_ext vscrapy_magic")
    options = f"-a site={site.url} -a pages={PAGES} -s LOG_LEVEL=INFO"
    running = kernel.send(f"%%vcrawl steady {options}\n{SPIDER.read_text()}")
    wait_for(
        "the crawl runs on both workers",
        lambda: site.stats()["requests"] > BEGUN_PAGES and used(crew) == len(crew.workers),
    )
    return running


def freed_s(crew: Cluster, since_s: float) -> float:
    wait_for("slots are free", lambda: not used(crew))
    return time.monotonic() - since_s


def interrupted(kernel: Kernel, site: DemoSite, crew: Cluster) -> list[float]:
    """Seconds to the last request, to the cell's end, to free slots."""
    running = begin(kernel, site, crew)
    since_s = time.monotonic()
    kernel.interrupt()
    kernel.result(running)
    returned_s = time.monotonic() - since_s
    free_s = freed_s(crew, since_s)
    time.sleep(QUIET_S)
    return [last_hit_s(site, since_s), returned_s, free_s]


def killed(folder: Path, site: DemoSite, crew: Cluster) -> list[float]:
    """Seconds to the last request, to free slots."""
    with closing(Kernel(folder, {"VSCRAPY_REDIS_URL": crew.server.url})) as kernel:
        begin(kernel, site, crew)
        since_s = time.monotonic()
        kernel.kill()
        free_s = freed_s(crew, since_s)
        time.sleep(QUIET_S)
        return [last_hit_s(site, since_s), free_s]


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 20)
    found = []
    with cluster(2) as crew, DemoSite(delay_ms=PAGE_MS) as site:
        folder = crew.folder
        with closing(Kernel(folder, {"VSCRAPY_REDIS_URL": crew.server.url})) as kernel:
            for _ in range(rounds):
                found.append([*interrupted(kernel, site, crew), *killed(folder, site, crew)])
    rows = [
        [what, f"{median(times):.2f}", f"{max(times):.2f}", promise]
        for (what, promise), times in zip(ROWS, zip(*found, strict=True), strict=True)
    ]
    print(f"Stopping, {rounds} rounds; {conditions()}")
    print(table(["what", "median s", "worst s", "promised"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
