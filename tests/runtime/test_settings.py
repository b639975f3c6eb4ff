"""Changing a running crawl as its children see it; promised is a second, asserted are three."""

import itertools
import json
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.crawling import Crawl, demo_site
from tests.waiting import wait_until
from vscrapy_magic.runtime.slots import WAITING_MAX
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.keys import crawl_key
from vscrapy_magic.store.messages import CloseLimits, CrawlState
from vscrapy_magic.store.pipes import ExitCode

WITHIN_S = 3.0  # three times what is promised

PAGES = """
import asyncio, time
import scrapy
from scrapy import signals
class S(scrapy.Spider):
    name = "s"
    count, pause, custom_settings = 5000, 0.0, {}
    async def start(self):
        for n in range(int(self.count)):
            meta = {"download_slot": "pages"}
            yield scrapy.Request(f"data:text/plain,{n}", meta=meta)
    async def parse(self, response):
        self.logger.debug("debugging")
        await asyncio.sleep(float(self.pause))
        yield {"n": response.text, "at": time.time()}
"""
SLOW_SITE = """
import time
import scrapy
class S(scrapy.Spider):
    name = "s"
    site, count, ms = "", 400, 100
    async def start(self):
        for n in range(int(self.count)):
            yield scrapy.Request(f"{self.site}/slow/{n}?ms={self.ms}")
    def parse(self, response):
        slot = self.crawler.engine.downloader.slots[response.meta["download_slot"]]
        yield {"share": slot.concurrency, "at": time.time()}
"""


def crawl_of(store: Store, source: str = PAGES, children: int = 1, **fields: Any) -> Crawl:
    crawl = Crawl(store, textwrap.dedent(source), "s", **fields)
    for _ in range(children):
        crawl.add_child()
    return crawl


def change(crawl: Crawl, **values: Any) -> None:
    Control(crawl.store).set(crawl.spec.crawl_id, values)


def has_pages(crawl: Crawl, count: int) -> None:
    wait_until(lambda: crawl.view().totals.pages >= count, 20, f"{count} pages")


def all_run(crawl: Crawl) -> None:
    wait_until(lambda: len(crawl.view().members) == len(crawl.children), 20, "all children")
    wait_until(
        lambda: all("running" in child.log() for child in crawl.children), 20, "running children"
    )


def count(crawl: Crawl, text: str) -> int:
    return sum(text in report.text for child in crawl.children for report in child.reports)


@pytest.fixture
def site() -> Iterator[str]:
    with demo_site() as address:
        yield address


def in_flight(site: str) -> int:
    with urllib.request.urlopen(f"{site}/_stats", timeout=5) as answer:
        return int(json.load(answer)["in_flight"])


def arrivals(site: str) -> list[float]:
    """When slow pages were asked for, as of `time.monotonic`."""
    with urllib.request.urlopen(f"{site}/_log", timeout=5) as answer:
        return sorted(at for at, target in json.load(answer) if "slow" in target)


def test_a_crawl_can_be_debugged_while_it_runs(store: Store) -> None:
    settings = {"LOG_LEVEL": "INFO", "DOWNLOAD_DELAY": 0.05}
    with crawl_of(store, settings=settings) as crawl:
        has_pages(crawl, 3)
        assert count(crawl, "debugging") == 0
        change(crawl, LOG_LEVEL="DEBUG")
        wait_until(lambda: count(crawl, "debugging"), WITHIN_S, "a DEBUG line")
        assert count(crawl, "Changed while the crawl runs: LOG_LEVEL = DEBUG") == 1
        change(crawl, LOG_LEVEL="WARNING")
        wait_until(lambda: count(crawl, "LOG_LEVEL = WARNING"), WITHIN_S, "the last line")
        pages, lines = crawl.view().totals.pages, count(crawl, "debugging")
        has_pages(crawl, pages + 10)
        assert count(crawl, "debugging") <= lines + 1
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_a_shorter_delay_is_not_waited_for(store: Store) -> None:
    settings = {"DOWNLOAD_DELAY": 60, "RANDOMIZE_DOWNLOAD_DELAY": False}
    with crawl_of(store, settings=settings) as crawl:
        has_pages(crawl, 1)
        change(crawl, DOWNLOAD_DELAY="0.05")
        wait_until(lambda: crawl.view().totals.pages >= 20, WITHIN_S, "twenty pages")
        change(crawl, DOWNLOAD_DELAY=0)
        before = crawl.view().totals.pages
        wait_until(lambda: crawl.view().totals.pages >= before + 100, WITHIN_S, "more pages")
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_a_delay_set_later_holds_for_all_workers_together(store: Store, site: str) -> None:
    args = {"site": site, "count": "5000", "ms": "1"}
    with crawl_of(store, SLOW_SITE, args=args, children=2) as crawl:
        all_run(crawl)
        has_pages(crawl, 100)
        change(crawl, DOWNLOAD_DELAY=0.2, RANDOMIZE_DOWNLOAD_DELAY=False)
        begun = time.monotonic()
        wait_until(lambda: count(crawl, "DOWNLOAD_DELAY = 0.2") == 2, WITHIN_S, "both follow")
        words = "DOWNLOAD_DELAY = 0.2 on 127.0.0.1"
        wait_until(lambda: crawl.view().limited_by == words, 10, "the panel's word for it")
        wait_until(lambda: time.monotonic() > begun + WITHIN_S + 2, 10)
        # As the site sees it: the callbacks of earlier pages may run late.
        times = [at for at in arrivals(site) if at > begun + WITHIN_S]
        assert len(times) >= 6, crawl.logs()
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert min(gaps) > 0.1, (begun, times, crawl.logs())
        change(crawl, DOWNLOAD_DELAY=0)
        pages = crawl.view().totals.pages
        wait_until(lambda: crawl.view().totals.pages >= pages + 100, WITHIN_S, "more pages")
        crawl.crawls.kill(crawl.spec.crawl_id)


@pytest.mark.parametrize("children", [1, 2])
def test_a_sites_concurrency_follows(store: Store, site: str, children: int) -> None:
    fields: dict[str, Any] = {"args": {"site": site, "count": "900"}, "children": children}
    with crawl_of(store, SLOW_SITE, **fields) as crawl:
        all_run(crawl)
        has_pages(crawl, 60)
        change(crawl, CONCURRENT_REQUESTS_PER_DOMAIN=2)
        changed = time.time()
        wait_until(lambda: time.time() > changed + 2.5, 5)
        shares = [r["data"] for r in crawl.outputs()[0]]
        assert max(s["share"] for s in shares if s["at"] < changed) == 8 // children
        assert {s["share"] for s in shares if s["at"] > changed + 1} == {2 // children}
        # Scrapy's downloader may send all that waits in a slot at once, whatever its concurrency.
        assert in_flight(site) <= 2 + children * WAITING_MAX
        change(crawl, CONCURRENT_REQUESTS_PER_DOMAIN=12)
        wait_until(lambda: in_flight(site) >= 9, WITHIN_S, "many requests again")
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_the_concurrency_of_a_worker_follows(store: Store, site: str) -> None:
    with crawl_of(store, SLOW_SITE, args={"site": site}) as crawl:
        wait_until(lambda: in_flight(site) >= 6, 20, "many requests at once")
        change(crawl, CONCURRENT_REQUESTS="1")
        wait_until(lambda: in_flight(site) <= 1, WITHIN_S, "one request at a time")
        change(crawl, CONCURRENT_REQUESTS=16)
        wait_until(lambda: in_flight(site) >= 6, WITHIN_S, "many requests again")
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_of_two_workers_one_leaves_and_nothing_is_lost(store: Store) -> None:
    with crawl_of(store, args={"count": "900", "pause": "0.02"}) as crawl:
        has_pages(crawl, 20)
        second = crawl.add_child()
        all_run(crawl)
        change(crawl, workers=1)
        assert second.process.wait(WITHIN_S) == ExitCode.DONE, crawl.logs()
        assert len(crawl.view().members) == 1
        late = crawl.add_child()
        assert late.process.wait(20) == ExitCode.DONE
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.view().totals.items == 900, crawl.logs()
        numbers = [record["data"]["n"] for record in crawl.outputs()[0]]
        assert len(set(numbers)) == 900


def test_a_child_that_joins_later_has_the_settings_as_they_are(store: Store) -> None:
    source = PAGES.replace(
        '        self.logger.debug("debugging")\n',
        "        get = self.crawler.settings.get\n"
        '        self.logger.info("%s %s", get("DOWNLOAD_TIMEOUT"), get("CONCURRENT_REQUESTS"))\n',
    )
    settings = {"LOG_LEVEL": "ERROR"}
    crawl = crawl_of(store, source, args={"pause": "0.01"}, settings=settings, children=0)
    with crawl:
        change(crawl, LOG_LEVEL="INFO", DOWNLOAD_TIMEOUT=7, CONCURRENT_REQUESTS=3)
        crawl.add_child()
        wait_until(lambda: count(crawl, "7.0 3"), 20, "a line of the spider")
        change(crawl, DOWNLOAD_TIMEOUT=8)
        wait_until(lambda: count(crawl, "8.0 3"), WITHIN_S, "another one")
        assert count(crawl, "Changed while the crawl runs") == 1
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_limits_of_the_crawl_take_the_place_of_those_of_its_children(store: Store) -> None:
    source = PAGES.replace("{}", "{'CLOSESPIDER_ITEMCOUNT': 60, 'CLOSESPIDER_TIMEOUT': 2}")
    settings = {"DOWNLOAD_DELAY": 0.02, "RANDOMIZE_DOWNLOAD_DELAY": False}
    with crawl_of(store, source, args={"count": "150"}, settings=settings) as crawl:
        has_pages(crawl, 10)
        change(crawl, CLOSESPIDER_ITEMCOUNT=0, CLOSESPIDER_TIMEOUT=60)
        crawl.add_child()
        view = crawl.wait()
        assert (view.close_reason, view.totals.items) == ("finished", 150), crawl.logs()


def test_an_item_limit_set_later_ends_the_crawl(store: Store) -> None:
    fields: dict[str, Any] = {"limits": CloseLimits(items=4000), "args": {"pause": "0.02"}}
    with crawl_of(store, children=2, **fields) as crawl:
        has_pages(crawl, 20)
        change(crawl, CLOSESPIDER_ITEMCOUNT=30)
        assert crawl.wait(10).close_reason == "closespider_itemcount", crawl.logs()


def test_a_throttle_that_is_not_there_is_told(store: Store) -> None:
    with crawl_of(store, args={"pause": "0.02"}) as crawl:
        has_pages(crawl, 3)
        change(crawl, AUTOTHROTTLE_TARGET_CONCURRENCY=2)
        wait_until(lambda: count(crawl, "AUTOTHROTTLE_ENABLED is not set"), WITHIN_S, "a warning")
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_a_throttle_follows(store: Store, site: str) -> None:
    settings = {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 1}
    args = {"site": site, "ms": "500"}
    with crawl_of(store, SLOW_SITE, args=args, settings=settings) as crawl:
        has_pages(crawl, 1)
        change(crawl, AUTOTHROTTLE_TARGET_CONCURRENCY=8)
        wait_until(lambda: in_flight(site) >= 4, 15, "more requests at once")
        crawl.crawls.kill(crawl.spec.crawl_id)


# Pushing.


def push(crawl: Crawl, *urls: str, **fields: Any) -> float:
    """Push URLs; seconds until the first of their pages is counted."""
    pages = crawl.view().totals.pages
    begun = time.monotonic()
    crawl.crawls.push(crawl.spec.crawl_id, urls, **fields)
    wait_until(lambda: crawl.view().totals.pages > pages, 5, "a pushed page")
    return time.monotonic() - begun


KEPT = """
import scrapy
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield scrapy.Request("data:text/plain,first")
    def parse(self, response):
        yield {"n": response.text}
    def parse_other(self, response):
        yield {"other": response.text}
"""


@pytest.mark.parametrize("children", [1, 2])
def test_a_crawl_kept_open_takes_urls_at_once(store: Store, children: int) -> None:
    with crawl_of(store, KEPT, children=children, keep_open=True) as crawl:
        all_run(crawl)
        wait_until(lambda: crawl.view().state is CrawlState.WAITING, 20, "nothing left to do")
        assert crawl.view().why == "kept open: push URLs or stop it"
        for n in range(5):
            assert push(crawl, f"data:text/plain,{n}") < 0.3  # promised is a tenth of a second
        push(crawl, "data:text/plain,0", callback="parse_other")  # not filtered
        wait_until(lambda: crawl.view().totals.items == 7, 5, "all items")
        assert crawl.items()[repr([("other", "0")])] == 1
        crawl.crawls.stop(crawl.spec.crawl_id)
        assert crawl.wait(10).state is CrawlState.STOPPED
        assert crawl.children[0].process.wait(10) == ExitCode.DONE


def test_a_crawl_kept_open_costs_nothing_while_it_waits(store: Store) -> None:
    with crawl_of(store, KEPT, children=2, keep_open=True) as crawl:
        all_run(crawl)
        wait_until(lambda: crawl.view().state is CrawlState.WAITING, 20, "nothing left to do")
        key = crawl_key(crawl.spec.crawl_id, "meta")
        wait_until(lambda: not crawl.view().totals.leased, 5)

        def commits() -> int:
            return int(store.client.hget(key, "commit_no"))

        before, begun = commits(), time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 3, 5)
        assert commits() - before <= 6  # a step a second per child would be too many already
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_a_running_crawl_takes_urls_at_once(store: Store) -> None:
    with crawl_of(store, args={"pause": "0.01"}, settings={"DOWNLOAD_DELAY": 0.1}) as crawl:
        has_pages(crawl, 3)
        begun = time.time()
        crawl.crawls.push(crawl.spec.crawl_id, ["data:text/plain,pushed"])

        def hits() -> list[float]:
            found = (record["data"] for record in crawl.outputs()[0])
            return [data["at"] for data in found if data["n"] == "pushed"]

        wait_until(hits, 5, "its item")
        assert hits()[0] - begun < 0.3, crawl.logs()  # promised is a tenth of a second
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_pushed_urls_of_a_new_site_keep_the_delay(store: Store, site: str) -> None:
    settings = {"DOWNLOAD_DELAY": 0.2, "RANDOMIZE_DOWNLOAD_DELAY": False}
    fields: dict[str, Any] = {"settings": settings, "keep_open": True, "children": 2}
    with crawl_of(store, KEPT, **fields) as crawl:
        all_run(crawl)
        wait_until(lambda: crawl.view().state is CrawlState.WAITING, 20, "nothing left to do")
        urls = [f"{site}/slow/größe-{n}?ms=1" for n in range(8)]
        crawl.crawls.push(crawl.spec.crawl_id, urls)
        wait_until(lambda: crawl.view().totals.pages == 9, 10, "all pages")
        times = arrivals(site)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert len(times) == 8
        assert min(gaps) > 0.15, crawl.logs()
        crawl.crawls.kill(crawl.spec.crawl_id)
