"""What feeds a panel in tests: views, lines and ended crawls; used here and in kernels of Labs."""

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from vscrapy_magic.notebook.panel import Panel
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlSpec, CrawlState, Totals
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.views import CrawlView, MemberView

CRAWL = CrawlId("1a2b3c4d")
WORKERS = ("host-1", "host-2", "host-10", "other-1")
HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    "\x1b]8;;javascript:alert(1)\x07link\x1b[31m</pre></details>$x$ \u202eevil"
)
STARTED_MS = 1_764_000_000_000


def view(state: str = "running", *, spider: str = "quotes", **changes: object) -> CrawlView:
    """A crawl of four workers, 120 pages and 96 items, 8 s after its start or ended then."""
    is_over = state in {"finished", "stopped", "failed", "cancelled"}
    made = CrawlView(
        crawl_id=CRAWL,
        spec=CrawlSpec(crawl_id=CRAWL, spider=spider, bundle="00"),
        state=CrawlState(state),
        why="",
        close_reason="finished" if state == "finished" else "",
        totals=Totals(items=96, pages=120, errors=2, queued=40),
        members=() if is_over else members(*WORKERS),
        created_ms=STARTED_MS,
        started_ms=STARTED_MS,
        ended_ms=STARTED_MS + 8000 if is_over else 0,
    )
    return msgspec.structs.replace(made, **changes)


def members(*names: str) -> tuple[MemberView, ...]:
    return tuple(MemberView(MemberToken(f"t-{name}"), WorkerName(name)) for name in names)


def line(text: str, level: int = 20, worker: str = "host-1", **changes: object) -> LogLine:
    made = LogLine(STARTED_MS, level, "quotes", text, WorkerName(worker))
    return msgspec.structs.replace(made, **changes)


def failure(
    kind: str = "ValueError", message: str = "no price", place: str = "Cell In[3], line 12"
) -> FailureRecord:
    return FailureRecord(
        "callback", kind, message, "", place=place, group=f"{kind} {place}", worker="host-1"
    )


def ended_crawl(
    folder: Path, last: CrawlView | None = None, failures: Sequence[FailureRecord] = ()
) -> Crawl:
    """A crawl as its sender has it when it is over: no server behind it."""
    last = last or view("finished")
    spool = Spool(folder, last.crawl_id, last.spec)
    if failures:
        spool.keep([Output(1, "n1", 0, 0, b"", len(failures), msgspec.msgpack.encode(failures))])
    crawl = Crawl(None, spool, last)
    crawl.close()
    return crawl


class Feeder:
    """Feeds a panel from a thread of its own, as the follower of a crawl does."""

    def __init__(
        self, panel: Panel, lines: Callable[[int], Sequence[LogLine]], *, every_s: float = 0.05
    ) -> None:
        self._panel = panel
        self._lines = lines
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)
        self.rounds = 0

    def _feed(self) -> None:
        started_ms = int(time.time() * 1000)
        while not self._stop.wait(self._every_s):
            self.rounds += 1
            self._panel.lines(self._lines(self.rounds))
            totals = Totals(items=3 * self.rounds, pages=4 * self.rounds, errors=1, queued=40)
            self._panel.view(view(totals=totals, started_ms=started_ms))

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def some_lines(number: int) -> list[LogLine]:
    """What four workers log of one page each."""
    found = [
        line(f"Crawled (200) <GET http://127.0.0.1/page/{number}>", 10, worker, logger="scrapy")
        for worker in WORKERS
    ]
    if number % 20 == 5:
        traceback = "Spider error\nTraceback (most recent call last):\nValueError: no price"
        found.append(line(traceback, 40, WORKERS[number % len(WORKERS)]))
    if number % 20 == 10:
        found.append(line("Retrying <GET http://127.0.0.1/page/3>: 503", 30, WORKERS[2]))
    return [msgspec.structs.replace(each, time_ms=int(time.time() * 1000)) for each in found]


def finish(panel: Panel, failures: Sequence[FailureRecord] = ()) -> None:
    """End the panel's crawl."""
    with tempfile.TemporaryDirectory() as folder:
        panel.finish(ended_crawl(Path(folder), failures=failures))
