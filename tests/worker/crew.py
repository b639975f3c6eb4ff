"""Workers as users start them, and crawls of a few lines for them."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

import psutil

from tests.placing import place
from tests.waiting import wait_until
from vscrapy_magic.runtime.loader import encode_settings
from vscrapy_magic.sender.spool import failures_in
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import Bundle, CrawlSpec, encode
from vscrapy_magic.store.outputs import Output, Outputs
from vscrapy_magic.store.presence import Presence, WorkerView
from vscrapy_magic.store.values import Codec
from vscrapy_magic.store.views import CrawlView

KILLS_AT_ONE = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(6):
            yield page(n)
    async def parse(self, response):
        await asyncio.sleep(0.02)
        if response.text == "1":
            %s
        yield {"n": int(response.text)}
"""
HEAD = """
import asyncio, ctypes, os, signal, subprocess, sys, time
import scrapy
def page(n, **fields):
    meta = {**fields.pop("meta", {}), "download_slot": "pages"}
    return scrapy.Request(f"data:text/plain,{n}", meta=meta, **fields)
"""

PAGES = """
class S(scrapy.Spider):
    name = "s"
    count = 10
    async def start(self):
        for n in range(int(self.count)):
            yield page(n)
    def parse(self, response):
        time.sleep(float(getattr(self, "delay", 0)))
        yield {"n": int(response.text), "pid": os.getpid()}
"""


HANGING = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        signal.signal(signal.SIGTERM, lambda *_: print("deaf", flush=True))
        yield page(1)
    def parse(self, response):
        print("hangs", flush=True)
        while True:
            time.sleep(0.1)
"""


class Workers:
    """One process of workers; what it writes to stderr is kept in `said`."""

    def __init__(self, url: str, *options: str, **environment: str) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vscrapy_magic.worker", url, *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())

    @property
    def pid(self) -> int:
        return self.process.pid

    def zygote(self) -> psutil.Process:
        for child in psutil.Process(self.pid).children():
            if "vscrapy_magic.runtime.zygote" in child.cmdline():
                return child
        raise AssertionError("no zygote")

    def has_zygote(self) -> bool:
        try:
            return bool(self.zygote())
        except (AssertionError, psutil.Error):
            return False

    def ready(self) -> bool:
        """Whether the zygote waits for orders, so that it has done with its imports."""
        try:
            return self.zygote().status() == psutil.STATUS_SLEEPING
        except (AssertionError, psutil.Error):
            return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        return self.process.wait(timeout_s)

    def text(self) -> str:
        return "\n".join(self.said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            family = psutil.Process(self.pid).children(recursive=True)
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for process in family:
                    process.kill()
                self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Ordered:
    """A crawl that was ordered, seen through the store."""

    def __init__(self, store: Store, source: str, **settings: Any) -> None:
        self.store = store
        self.crawls = Crawls(store)
        fields = {name: settings.pop(name) for name in ("workers", "args") if name in settings}
        bundle = Bundle(
            files={"spider.py": (HEAD + textwrap.dedent(source)).encode()}, entry="spider.py"
        )
        digest = hashlib.sha256(encode(bundle)).hexdigest()
        spec = CrawlSpec(
            crawl_id=new_crawl_id(),
            spider="s",
            bundle=digest,
            settings=encode_settings(
                # Few at once, so that there is work left for other workers.
                {"LOG_LEVEL": "INFO", "CONCURRENT_REQUESTS": 2, **settings}
            ),
            **fields,
        )
        self.crawl_id: CrawlId = spec.crawl_id
        place(store, spec, bundle)

    def view(self) -> CrawlView:
        return self.crawls.view(self.crawl_id)

    def wait(self, timeout_s: float = 30) -> CrawlView:
        wait_until(lambda: self.view().over, timeout_s, f"end of the crawl\n{self.log()}")
        # Their last lines come after the end of the crawl.
        wait_until(lambda: self._ends() >= len(self.pids()) > 0, 10, "last lines")
        return self.view()

    def _ends(self) -> int:
        return sum(line.text.startswith("the child ") for line in self.lines())

    def wait_for_members(self, count: int, timeout_s: float = 20) -> None:
        wait_until(lambda: len(self.view().members) >= count, timeout_s, f"{count} members")

    def lines(self) -> list[LogLine]:
        found: list[LogLine] = []
        after, logs = "0-0", Logs(self.store)
        while True:
            more, after = logs.read(self.crawl_id, after)
            if not more:
                return found
            found += more

    def log(self) -> str:
        return "\n".join(
            f"{x.worker} {x.source} {x.level} {x.logger}: {x.text}" for x in self.lines()
        )

    def wait_for_line(self, text: str, timeout_s: float = 20) -> LogLine:
        wait_until(
            lambda: any(text in line.text for line in self.lines()), timeout_s, f"line {text!r}"
        )
        return next(line for line in self.lines() if text in line.text)

    def outputs(self) -> list[Output]:
        reader, entries = Outputs(self.store, self.crawl_id), list[Output]()
        while more := reader.read(entries[-1].witness if entries else None):
            entries += more
        return entries

    def items(self) -> list[dict[str, Any]]:
        codec, items = Codec(), []
        for entry in self.outputs():
            items += codec.decode(entry.items) if entry.items else []
        return [record["data"] for record in items]

    def failures(self) -> list[FailureRecord]:
        return [record for entry in self.outputs() for record in failures_in(entry)]

    def numbers(self) -> Counter[int]:
        return Counter(item["n"] for item in self.items())

    def pids(self) -> set[int]:
        return {
            int(line.text.partition("(process ")[2].rstrip(")"))
            for line in self.lines()
            if line.text.startswith("a child starts (process")
        }

    def frontier(self) -> Frontier:
        return Frontier(self.store, self.crawl_id)


def workers(store: Store) -> dict[str, WorkerView]:
    return {view.record.name: view for view in Presence(store).workers()}


def short_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="vs-"))
