"""How fast a failure is seen and debugged, and what it costs: `python -m benchmarks.debug`.

Seen: the callback writes the time into its exception. A real kernel looks at `crawl.failures`; its
client waits for the message with the line of the log that goes to the panel. One clock.
Debugged: from sending `%vdebug` to a real kernel until it asks for input.
Cost: a crawl of which one page in ten raises, against the same crawl where only Scrapy hears of it,
logs and counts it. The two of a pair run at the same time, on a worker each that changes with every
pair: whatever else the machine does slows both. Worker, child and sender count.
"""

import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import msgspec

from benchmarks.measure import (
    SPIDERS,
    Cluster,
    cluster,
    conditions,
    cpu_of,
    median,
    options_from_line,
    table,
)
from tests.kernels import Kernel
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.sender.options import parse_words
from vscrapy_magic.sender.order import file_order
from vscrapy_magic.sender.session import Session

SPIDER = SPIDERS / "failing.py"
WORKERS = 2
QUIET = "-a pages={count} -a every=1 -a page=/slow/{{number}}?ms={{ms}} -s CONCURRENT_REQUESTS=1"
BUSY = "-a pages={pages} -a every=50"  # at full speed
EVERY = 50
RAISED = re.compile(r"ValueError: raised at (\d+\.\d+)")
LOOK_S = 0.001
SIZES = {"a small page": "/book/1", "1 MB": "/big?bytes=1000000"}
KEEP_ALL = "-s VSCRAPY_FAILURE_BODY_BYTES=2000000"
AGAIN = 3  # uses of the debugger in a kernel after the first
PAIR_WITHIN_S = 300.0
SHARE = 10  # of so many pages one raises, where the cost is measured
# Prints how late each failure is known in the kernel; the panel lives in a thread meanwhile.
LOOKING = f"""\
import time
known = 0
while not crawl.is_over or known < len(crawl.failures):
    while known < len(crawl.failures):
        now_s = time.time()
        print("known", now_s - float(crawl.failures[known].message.split()[-1]))
        known += 1
    time.sleep({LOOK_S})
"""


@dataclass
class Lags:
    """Seconds from raising to being seen, of one crawl."""

    known: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)


@contextmanager
def notebook(crew: Cluster) -> Iterator[Kernel]:
    with closing(Kernel(crew.folder, {"VSCRAPY_REDIS_URL": crew.server.url})) as kernel:
        kernel.run("%load_ext vscrapy_magic")
        yield kernel


def run(kernel: Kernel, cell: str) -> str:
    reply = kernel.run(cell)
    if reply.status != "ok":
        sys.exit(f"a cell failed:\n{reply.text}")
    return reply.text


def lags(kernel: Kernel, site: DemoSite, words: str) -> Lags:
    """Crawl, and note when each failure is known and when its line goes to the panel."""
    found, seen = Lags(), set()
    order = f"%%vcrawl failing -a site={site.url} {words} -s LOG_LEVEL=INFO --bg --as crawl"
    run(kernel, f"{order}\n{SPIDER.read_text()}")
    looking, text = kernel.send(LOOKING), ""
    while True:
        message = kernel.message(60.0)
        now_s, kind, content = time.time(), message["msg_type"], message["content"]
        if kind == "comm_msg":
            for raised in RAISED.findall(json.dumps(content["data"])):
                if raised not in seen:
                    seen.add(raised)
                    found.shown.append(now_s - float(raised))
        elif message["parent_header"].get("msg_id") == looking:
            text += content["text"] if kind == "stream" else ""
            if kind == "error":
                sys.exit("\n".join(content["traceback"]))
            if kind == "status" and content["execution_state"] == "idle":
                break
    found.known = [float(line.split()[1]) for line in text.splitlines() if "known" in line]
    return found


def to_prompt_s(kernel: Kernel, number: int) -> float:
    """Seconds from sending `%vdebug` to the kernel's question."""
    begun = time.monotonic()
    sent = kernel.send(f"%vdebug {number}")
    kernel.prompt()
    took_s = time.monotonic() - begun
    kernel.type("q")
    kernel.result(sent)
    return took_s


def debugged(crew: Cluster, site: DemoSite, path: str) -> tuple[float, list[float]]:
    """Seconds to the prompt in a fresh kernel whose crawl has failed, and of the next uses."""
    with notebook(crew) as kernel:
        words = f"-a site={site.url} -a pages=1 -a every=1 -a page={path} {KEEP_ALL}"
        run(kernel, f"%%vcrawl failing {words}\n{SPIDER.read_text()}")
        return to_prompt_s(kernel, 1), [to_prompt_s(kernel, 1) for _ in range(AGAIN)]


@dataclass(frozen=True)
class Cost:
    """What one crawl took, of its worker and its sender."""

    cpu_ms_per_page: float
    pages_per_s: float


@dataclass(frozen=True)
class Lane:
    """One worker and one sender, for crawls that run beside those of another lane."""

    url: str
    worker: str
    pid: int
    site: str
    pages: int

    def run(self, kinds: Sequence[str], together: Barrier, costs: "Queue[Cost]") -> None:
        """Crawl each kind in turn, with the other lane; in a process of its own."""
        with Session.connect(self.url, kind="benchmark") as session:
            for told in kinds:
                together.wait()
                costs.put(self._cost(session, told))

    def _cost(self, session: Session, told: str) -> Cost:
        words = f"-a site={self.site} -a pages={self.pages} -a every={SHARE} -a told={told}"
        options = parse_words(
            [str(SPIDER), *words.split(), "-L", "INFO"], "vscrapy runspider", "spider_file"
        )
        order = msgspec.structs.replace(file_order(options), only=self.worker, workers=1)
        before_s, begun_s = self._used_s(), time.perf_counter()
        crawl = session.place(order)
        crawl.wait()
        wall_s, cpu_s = time.perf_counter() - begun_s, self._used_s() - before_s
        failures, pages = len(crawl.failures) + crawl.failures.left_out, crawl.view.totals.pages
        if (pages, failures) != (self.pages, -(-pages // SHARE) if told == "yes" else 0):
            sys.exit(f"{pages} pages, {failures} failures: not what was ordered")
        return Cost(1000 * cpu_s / pages, pages / wall_s)

    def _used_s(self) -> float:
        return cpu_of([self.pid]) + time.process_time()


def costs(crew: Cluster, site: DemoSite, pairs: int, pages: int) -> tuple[list[Cost], list[Cost]]:
    """Of crawls with captures and of such without, pair by pair at the same time."""
    spawn, kinds = multiprocessing.get_context("spawn"), ["yes", "no"]
    together, found = spawn.Barrier(WORKERS), []
    for number, process in enumerate(crew.workers):
        lane = Lane(crew.server.url, f"w{number + 1}", process.pid, site.url, pages)
        # The first pair warms up; then each worker has each kind in turn.
        turns = [kinds[(number + turn) % 2] for turn in range(pairs + 1)]
        queue = spawn.Queue()
        running = spawn.Process(target=lane.run, args=(turns, together, queue), daemon=True)
        running.start()
        found.append((turns, queue, running))
    by_kind: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    for turn in range(pairs + 1):
        for turns, queue, _ in found:
            cost = queue.get(timeout=PAIR_WITHIN_S)
            if turn:
                by_kind[turns[turn]].append(cost)
    for _, _, running in found:
        running.join()
    return by_kind["yes"], by_kind["no"]


def seen_rows(crew: Cluster, site: DemoSite, count: int) -> list[list[str]]:
    rows = []
    cases = {
        "one failure now and then": QUIET.format(count=count),
        "at full speed": BUSY.format(pages=EVERY * count),
    }
    with notebook(crew) as kernel:
        lags(kernel, site, QUIET.format(count=2))
        for case, words in cases.items():
            found = lags(kernel, site, words)
            for what, each in (("in `crawl.failures`", found.known), ("in the panel", found.shown)):
                if len(each) < count:
                    sys.exit(f"{case}: {len(each)} of {count} were seen {what}")
                rows.append(timed(f"raised -> {what}, {case}", each, "< 300 ms"))
    return rows


def debugged_rows(crew: Cluster, site: DemoSite, rounds: int) -> list[list[str]]:
    first: dict[str, list[float]] = {size: [] for size in SIZES}
    next_: dict[str, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size, path in SIZES.items():
            begun_s, again_s = debugged(crew, site, path)
            first[size].append(begun_s)
            next_[size] += again_s
    rows = [timed(f"`%vdebug` -> prompt, {size}, first", first[size], "< 500 ms") for size in SIZES]
    return rows + [
        timed(f"`%vdebug` -> prompt, {size}, later", next_[size], "< 500 ms") for size in SIZES
    ]


def timed(what: str, seconds: list[float], promise: str) -> list[str]:
    ms = [1000 * each for each in seconds]
    return [what, str(len(ms)), f"{median(ms):.0f}", f"{max(ms):.0f}", promise]


def cost_rows(crew: Cluster, site: DemoSite, pairs: int, pages: int) -> list[list[str]]:
    told, silent = costs(crew, site, pairs, pages)
    return [
        compared("CPU ms per page", told, silent, lambda each: each.cpu_ms_per_page, "< 1.03"),
        compared("pages/s", told, silent, lambda each: each.pages_per_s, "> 0.97"),
    ]


def compared(
    what: str, told: list[Cost], silent: list[Cost], value: Callable[[Cost], float], promise: str
) -> list[str]:
    ours, theirs = [value(each) for each in told], [value(each) for each in silent]
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    figures = [f"{median(ours):.3f}", f"{median(theirs):.3f}", f"{median(ratios):.3f}", spread]
    return [what, *figures, promise]


def main() -> int:
    options = options_from_line(__doc__ or "", 4, failures=25, pairs=6, pages=1000)
    with cluster(WORKERS) as crew, DemoSite() as site:
        times = seen_rows(crew, site, options.failures)
        times += debugged_rows(crew, site, options.rounds)
        paid = cost_rows(crew, site, options.pairs, options.pages)
    print(f"Debugging, {WORKERS} workers, {options.rounds} fresh kernels a row; {conditions()}")
    print(table(["what", "times", "median ms", "worst ms", "promised"], times))
    print(f"\n1 of {SHARE} pages raises; {options.pairs} pairs of {options.pages} pages, medians\n")
    head = ["cost", "captured", "only logged", "ratio", "of single pairs", "promised"]
    print(table(head, paid))
    return 0


if __name__ == "__main__":
    sys.exit(main())
