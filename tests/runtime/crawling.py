"""A crawl without a worker: children started by command line, renewed and buried by the test."""

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.placing import place
from tests.waiting import wait_until
from vscrapy_magic.runtime.loader import encode_settings
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName
from vscrapy_magic.store.messages import Bundle, ChildOrder, CrawlSpec, encode
from vscrapy_magic.store.outputs import Output, Outputs
from vscrapy_magic.store.pipes import (
    Command,
    FrameReader,
    FromChild,
    Report,
    ToChild,
    frame,
    read_report,
)
from vscrapy_magic.store.values import Codec, read_stat
from vscrapy_magic.store.views import CrawlView

SPIDERS = Path(__file__).parent.parent / "spiders"
RENEW_S = 0.3
END_S = 60.0


def plain(item: dict[str, Any]) -> str:
    """An item as something that can be counted."""
    return repr(sorted(item.items()))


class ChildProcess:
    """One child, its pipes and what it reported."""

    def __init__(self, order: ChildOrder, environment: dict[str, str]) -> None:
        self.order = order
        self.reports: list[FromChild] = []
        control_read, self.control = os.pipe()
        report_read, report_write = os.pipe()
        order = msgspec.structs.replace(order, control_fd=control_read, report_fd=report_write)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vscrapy_magic.runtime.child"],
            stdin=subprocess.PIPE,
            pass_fds=(control_read, report_write),
            env={**os.environ, **environment},
        )
        os.close(control_read)
        os.close(report_write)
        assert self.process.stdin is not None
        self.process.stdin.write(encode(order))
        self.process.stdin.close()
        self._reader = threading.Thread(target=self._read, args=(report_read,))
        self._reader.start()

    def _read(self, fd: int) -> None:
        reader = FrameReader()
        while data := os.read(fd, 65536):
            self.reports += [read_report(body) for body in reader.feed(data)]
        os.close(fd)

    def say(self, command: Command, number: int = 0) -> None:
        os.write(self.control, frame(ToChild(command, number)))

    def log(self) -> str:
        return "\n".join(
            f"{r.level} {r.logger}: {r.text}" for r in self.reports if r.report is not Report.PONG
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self.control)


class Crawl:
    """A crawl of one file's spider on children of its own."""

    def __init__(
        self,
        store: Store,
        source: str,
        spider: str,
        *,
        args: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        name: str = "spider.py",
        variables: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        self.store = store
        self.crawls = Crawls(store)
        bundle = Bundle(files={name: source.encode()}, entry=name, env=variables or {})
        digest = hashlib.sha256(encode(bundle)).hexdigest()
        self.spec = CrawlSpec(
            crawl_id=new_crawl_id(),
            spider=spider,
            bundle=digest,
            args=args or {},
            settings=encode_settings({"LOG_LEVEL": "DEBUG", **(settings or {})}),
            **fields,
        )
        place(store, self.spec, bundle)
        self.frontier = Frontier(store, self.spec.crawl_id)
        self.children: list[ChildProcess] = []
        self._folder = tempfile.TemporaryDirectory(prefix="vs-child-")
        self._stop = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)
        self._supervisor.start()

    def add_child(self, **environment: str) -> ChildProcess:
        number = len(self.children)
        folder = Path(self._folder.name) / str(number)
        folder.mkdir()
        order = ChildOrder(
            crawl_id=self.spec.crawl_id,
            token=MemberToken(f"t{number}"),
            worker=WorkerName(f"w{number}"),
            url=self.store.url,
            folder=str(folder),
        )
        child = ChildProcess(order, environment)
        self.children.append(child)
        return child

    def _supervise(self) -> None:
        buried: set[str] = set()
        while not self._stop.wait(RENEW_S):
            living = [c for c in self.children if c.process.poll() is None]
            self.frontier.renew([c.order.token for c in living], ttl_ms=4000, beat_ms=1000)
            for child in self.children:
                token = child.order.token
                if child.process.poll() is not None and token not in buried:
                    buried.add(token)
                    self.frontier.reclaim(token)

    def view(self) -> CrawlView:
        return self.crawls.view(self.spec.crawl_id)

    def wait(self, timeout_s: float = END_S) -> CrawlView:
        wait_until(lambda: self.view().over, timeout_s, "end of the crawl")
        return self.view()

    def outputs(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Items and failures that were committed, in order."""
        codec = Codec()
        items: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        for entry in self.raw_outputs():
            items += codec.decode(entry.items) if entry.items else []
            failures += codec.decode(entry.failures) if entry.failures else []
        return items, failures

    def raw_outputs(self) -> list[Output]:
        """What was committed, in order."""
        reader = Outputs(self.store, self.spec.crawl_id)
        found: list[Output] = []
        while entries := reader.read(found[-1].witness if found else None):
            found += entries
        return found

    def items(self) -> Counter[str]:
        return Counter(plain(record["data"]) for record in self.outputs()[0])

    def stats(self) -> dict[str, Any]:
        return {k: read_stat(v) for k, v in self.crawls.stats(self.spec.crawl_id).items()}

    def logs(self) -> str:
        return "\n".join(f"--- child {i}\n{c.log()}" for i, c in enumerate(self.children))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._supervisor.join()
        for child in self.children:
            child.close()
        self._folder.cleanup()


def local_run(
    source: Path, folder: Path, *, args: Sequence[str] = (), settings: Sequence[str] = ()
) -> tuple[Counter[str], dict[str, Any]]:
    """Items and stats of `scrapy runspider`."""
    out, stats = folder / "out.jsonl", folder / "stats.json"
    dump = folder / "dump_stats.py"
    dump.write_text(
        "import json, os\n"
        "from scrapy.statscollectors import MemoryStatsCollector\n"
        "class Dump(MemoryStatsCollector):\n"
        "    def _persist_stats(self, stats, *a):\n"
        "        json.dump(stats, open(os.environ['STATS'], 'w'), default=str)\n"
    )
    command = [
        sys.executable,
        "-m",
        "scrapy",
        "runspider",
        str(source),
        "-O",
        str(out),
        "-L",
        "ERROR",
    ]
    command += ["-s", "STATS_CLASS=dump_stats.Dump"]
    for arg in args:
        command += ["-a", arg]
    for setting in settings:
        command += ["-s", setting]
    environment = {**os.environ, "STATS": str(stats)}
    environment["PYTHONPATH"] = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    subprocess.run(command, check=True, cwd=folder, env=environment, timeout=END_S)
    lines = out.read_text().splitlines() if out.exists() else []
    items = Counter(plain(msgspec.json.decode(line)) for line in lines)
    return items, msgspec.json.decode(stats.read_bytes())


@contextmanager
def demo_site(*options: str) -> Iterator[str]:
    """The demo shop as a process; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vscrapy_magic.demo", "--with-parent", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip().rstrip("/")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def busy_for(seconds: float) -> float:
    """When a wait that begins now has lasted so long."""
    return time.monotonic() + seconds
