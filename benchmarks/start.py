"""Time to the first item, against cold `scrapy runspider`: `python -m benchmarks.start`.

The clock starts when the cell (or the command) is sent, and stops when the item is in
`crawl.items`, or when the command's log says that it was scraped. Real kernels, the local cluster.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.measure import (
    SPIDERS,
    UP_WITHIN_S,
    conditions,
    median,
    rounds_from_line,
    scrapy,
    table,
    vscrapy,
    wait_for,
    workplace,
)
from tests.clusters import processes
from tests.kernels import Kernel
from vscrapy_magic.demo.site import DemoSite

SPIDER = SPIDERS / "first.py"
IDLE_S = 3600  # the warm cluster stays through all rounds
ENDED_WITHIN_S = 15.0
CASES = {
    "cold `scrapy runspider`": "",
    "warm session": "<= 0.15x",
    "`vscrapy runspider`, cluster warm": "",
    "fresh kernel, cluster warm": "",
    "fresh kernel that has imported scrapy, cluster warm": "<= 0.6 s",
    "fresh kernel, nothing running": "<= 2 s",
}


def crawling(site: DemoSite) -> str:
    """A cell that crawls, and says when the first item is there."""
    return f"""\
%vcrawl first -a site={site.url} --bg --as crawl
import time
while not len(crawl.items):
    time.sleep(0.001)
print("first", time.monotonic())
"""


def first_item_s(kernel: Kernel, *cells: str) -> float:
    """Seconds from sending the first cell to the item that the last one waits for."""
    begun = time.monotonic()
    replies = [kernel.result(sent) for sent in [kernel.send(cell) for cell in cells]]
    for reply in replies:
        if reply.status != "ok":
            sys.exit(f"a cell failed:\n{reply.text}")
    line = next(line for line in replies[-1].text.splitlines() if line.startswith("first "))
    kernel.run("crawl.wait(30)")
    return float(line.split()[1]) - begun


def first_line_s(command: Sequence[str], folder: Path) -> float:
    """Seconds from starting a command to the line of its log that says that an item came."""
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"Scraped from" in line:
                took_s = time.monotonic() - begun
                process.stderr.read()
                return took_s
    sys.exit(f"{' '.join(command)}: no item")


def fresh(folder: Path, site: DemoSite, *, imported: bool) -> float:
    """The first cell of a new kernel."""
    with closing(Kernel(folder, {})) as kernel:
        kernel.run("import scrapy" if imported else "pass")
        return first_item_s(kernel, "%load_ext vscrapy_magic", SPIDER.read_text() + crawling(site))


@contextmanager
def local_cluster(folder: Path) -> Iterator[None]:
    """Where a local cluster comes up when it is asked for; ended afterwards."""
    before = os.environ["XDG_RUNTIME_DIR"]
    folder.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        yield
    finally:
        os.environ["XDG_RUNTIME_DIR"] = before
        for keeper in processes(folder, "store.keeper"):
            with contextlib.suppress(OSError):
                keeper.terminate()
        wait_for("the local cluster has ended", lambda: not processes(folder), ENDED_WITHIN_S)


def one_round(folder: Path, site: DemoSite, kernel: Kernel, number: int) -> list[float]:
    """Seconds of each case, in the order of `CASES`."""
    command = ("runspider", str(SPIDER), "-a", f"site={site.url}")
    warm = [
        first_line_s(scrapy(*command), folder),
        first_item_s(kernel, crawling(site)),
        first_line_s(vscrapy(*command), folder),
        fresh(folder, site, imported=False),
        fresh(folder, site, imported=True),
    ]
    with local_cluster(folder / f"n{number}"):
        return [*warm, fresh(folder, site, imported=False)]


def main() -> int:
    rounds = rounds_from_line(__doc__ or "", 20)
    found = []
    os.environ["VSCRAPY_IDLE_S"] = str(IDLE_S)
    with (
        workplace() as folder,
        DemoSite() as site,
        local_cluster(folder / "warm"),
        closing(Kernel(folder, {})) as kernel,
    ):
        kernel.run("%load_ext vscrapy_magic")
        kernel.run(SPIDER.read_text() + crawling(site), UP_WITHIN_S)
        kernel.run("crawl.wait(30)")
        for number in range(rounds):
            found.append(one_round(folder, site, kernel, number))
    base = median([row[0] for row in found])
    rows = [
        [case, f"{median(times):.3f}", f"{max(times):.3f}", f"{median(times) / base:.2f}", promise]
        for (case, promise), times in zip(CASES.items(), zip(*found, strict=True), strict=True)
    ]
    print(f"Time to the first item, {rounds} alternating rounds; {conditions()}")
    print(table(["case", "median s", "worst s", "ratio to cold scrapy", "promised"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
