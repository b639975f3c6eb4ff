"""`start()` of every kind, killed anywhere: delivered once, and in bounded memory."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runtime.crawling import ChildProcess, Crawl
from tests.waiting import wait_until
from vscrapy_magic.runtime.start import START_AHEAD
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import crawl_key
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

HEAD = """
import asyncio, json, os, random
import scrapy
from vscrapy_magic.runtime import start as start_module
def page(n, **fields):
    return scrapy.Request(f"data:text/plain,{n}", meta={"download_slot": "pages"}, **fields)
class SlowSite:
    async def process_request(self, request):
        await asyncio.sleep(0.1)
class S(scrapy.Spider):
    name = "s"
    def parse(self, response):
        yield {"n": int(response.text)}
"""
DETERMINISTIC = """
    async def start(self):
        for n in range(1500):
            yield page(n)
            if n % 5 == 0:
                yield {"n": -n - 1}
"""
SHUFFLED = """
    async def start(self):
        numbers = list(range(1500))
        random.shuffle(numbers)
        for n in numbers:
            yield page(n) if n % 5 else {"n": n}
"""
AWAITING = """
    async def start(self):
        for n in range(0, 200, 4):
            yield page(n)
            await asyncio.sleep(0.005)
            response = await self.crawler.engine.download_async(page(n + 1))
            yield {"n": int(response.text)}
            yield page(n + 2)
            yield {"n": n + 3}
"""
CONSUMING = """
    async def start(self):
        while lines := open(self.file).read().splitlines():
            with open(self.file + ".new", "w") as rest:
                rest.write("".join(line + chr(10) for line in lines[1:]))
            os.replace(self.file + ".new", self.file)
            yield page(int(lines[0]))
            await asyncio.sleep(0)
"""
FAILING = """
    async def start(self):
        for n in range(1200):
            yield page(n)
        yield {"n": 1200}
        raise ValueError("in the middle")
"""
ENDLESS = """
    custom_settings = {"DOWNLOADER_MIDDLEWARES": {"spider.SlowSite": 1}}
    async def start(self):
        start_module.START_AHEAD = int(self.ahead)
        n = 0
        while True:
            yield page(n)
            n += 1
"""
WAITING = """
    async def start(self):
        for n in range(0, 40, 2):
            self.seen = asyncio.Event()
            yield page(n)
            await self.seen.wait()
            yield {"n": n + 1}
    def parse(self, response):
        self.seen.set()
        yield {"n": int(response.text)}
"""
REPEATING = """
    async def start(self):
        for n in range(int(self.count)):
            yield page(n % 500)
"""
POINTS = ("mid_part:1", "mid_part:2", "before_commit:2", "after_commit_before_ack:3", "at random")
MB = 1024 * 1024


def run(store: Store, start: str, *, settings: dict[str, Any] | None = None, **args: str) -> Crawl:
    return Crawl(
        store,
        HEAD + start,
        "s",
        args=args,
        settings={"LOG_LEVEL": "INFO", **(settings or {})},
    )


def kill(crawl: Crawl, point: str, seed: int) -> None:
    """Let one child work until it is gone."""
    if point != "at random":
        victim = crawl.add_child(VSCRAPY_FAIL=point)
        assert victim.process.wait(30) == -9, crawl.logs()
        return
    victim = crawl.add_child()
    wait_until(lambda: crawl.view().members, 30, "a child that takes part")
    time.sleep(random.Random(seed).uniform(0.01, 0.8))
    victim.process.kill()
    victim.process.wait()


def finished(crawl: Crawl, count: int) -> CrawlView:
    view = crawl.wait()
    assert view.state is CrawlState.FINISHED, crawl.logs()
    numbers = [record["data"]["n"] for record in crawl.outputs()[0]]
    assert len(set(numbers)) == len(numbers) == count, crawl.logs()
    assert crawl.stats()["item_scraped_count"] == count
    return view


@pytest.mark.parametrize(
    ("start", "point"),
    [
        *((DETERMINISTIC, point) for point in POINTS),
        (SHUFFLED, "mid_part:2"),
        (SHUFFLED, POINTS[-1]),
    ],
)
def test_a_killed_start_loses_and_repeats_nothing(store: Store, start: str, point: str) -> None:
    seed = random.randrange(10**6)
    with run(store, start) as crawl:
        kill(crawl, point, seed)
        crawl.add_child()
        view = finished(crawl, 1800 if start is DETERMINISTIC else 1500)
        assert view.totals.pages == (1500 if start is DETERMINISTIC else 1200), seed


@pytest.mark.parametrize("point", ["mid_part:2", "at random"])
def test_a_killed_start_that_awaits_loses_and_repeats_nothing(store: Store, point: str) -> None:
    with run(store, AWAITING) as crawl:
        kill(crawl, point, random.randrange(10**6))
        crawl.add_child()
        finished(crawl, 200)


@pytest.mark.parametrize("point", ["mid_part:2", "at random"])
def test_what_a_consuming_start_published_survives_its_kill(
    store: Store, tmp_path: Path, point: str
) -> None:
    file = tmp_path / "queue"
    file.write_text("".join(f"{n}\n" for n in range(1500)))
    with run(store, CONSUMING, file=str(file)) as crawl:
        kill(crawl, point, random.randrange(10**6))
        left = len(file.read_text().splitlines())
        keys = b"".join(store.client.lrange(crawl_key(crawl.spec.crawl_id, "p:start"), 0, -1))
        assert point == "at random" or (keys and left < 1500)
        crawl.add_child()
        # What was popped and not published is lost, as it is when a local Scrapy is killed.
        finished(crawl, len(keys) // 8 + left)


@pytest.mark.parametrize("point", ["", "mid_part:1"])
def test_an_error_in_start_is_one_failure_and_what_came_before_is_delivered(
    store: Store, point: str
) -> None:
    with run(store, FAILING) as crawl:
        if point:
            kill(crawl, point, 0)
        crawl.add_child()
        view = finished(crawl, 1201)
        assert view.totals.failures == 1
        (failure,) = crawl.outputs()[1]
        assert "in the middle" in failure["message"]


def test_start_may_wait_for_the_results_of_its_own_requests(store: Store) -> None:
    with run(store, WAITING) as crawl:
        crawl.add_child()
        begun = time.monotonic()
        finished(crawl, 40)
        assert time.monotonic() - begun < 20


def watch(crawl: Crawl, child: ChildProcess, until: Callable[[CrawlView], bool]) -> dict[str, int]:
    """The most that was seen of memory and queue until something is true, or the crawl is over."""
    process = psutil.Process(child.process.pid)
    most = {"rss": 0, "redis": 0, "queued": 0}
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        view = crawl.view()
        if until(view) or view.over:
            return most
        info: Any = crawl.store.client.info("memory")
        most["rss"] = max(most["rss"], process.memory_info().rss)
        most["redis"] = max(most["redis"], info["used_memory"])
        most["queued"] = max(most["queued"], view.totals.queued)
        time.sleep(0.05)
    raise AssertionError("not within 600 s")


@pytest.mark.parametrize(
    "ahead", [8_000, pytest.param(START_AHEAD, marks=[pytest.mark.load, pytest.mark.timeout(300)])]
)
def test_an_endless_start_waits_for_the_workers_in_bounded_memory(store: Store, ahead: int) -> None:
    before: Any = store.client.info("memory")
    with run(store, ENDLESS, ahead=str(ahead)) as crawl:
        child = crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages, 30, "pages")
        at_first = psutil.Process(child.process.pid).memory_info().rss
        before_full = watch(crawl, child, lambda view: view.totals.queued >= ahead)
        pages = crawl.view().totals.pages
        when_full = watch(crawl, child, lambda view: view.totals.pages >= pages + 300)
        crawl.crawls.stop(crawl.spec.crawl_id)
        assert crawl.wait().state is CrawlState.STOPPED
        most = {name: max(size, when_full[name]) for name, size in before_full.items()}
        print(json.dumps(most), at_first)
        # Pages are taken out of it meanwhile: it is filled up, and not beyond.
        assert ahead - 3000 <= when_full["queued"] <= most["queued"] < ahead + 3000
        assert most["rss"] - at_first < 60 * MB
        assert most["redis"] - before["used_memory"] < 20 * MB


@pytest.mark.parametrize(
    "count", [40_000, pytest.param(1_000_000, marks=[pytest.mark.load, pytest.mark.timeout(900)])]
)
def test_many_requests_of_start_need_few_bytes_each(store: Store, count: int) -> None:
    before: Any = store.client.info("memory")
    with run(store, REPEATING, count=str(count)) as crawl:
        child = crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages, 30, "pages")
        at_first = psutil.Process(child.process.pid).memory_info().rss
        begun = time.monotonic()
        most = watch(crawl, child, lambda _: False)
        print(json.dumps(most), at_first, round(time.monotonic() - begun, 1))
        crawl.wait(600)
        finished(crawl, 500)
        assert most["rss"] - at_first < 40 * MB
        assert most["redis"] - before["used_memory"] < 10 * MB
