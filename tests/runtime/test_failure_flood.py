"""Many failures of one place: bounded memory, the first ones whole, the last ones only counted."""

import json
import time
from collections import Counter
from typing import Any

import msgspec
import psutil
import pytest

from tests.runtime.crawling import Crawl
from tests.runtime.test_failures import HEAD, records
from tests.waiting import wait_until
from vscrapy_magic.runtime.batch import Batch, Taken
from vscrapy_magic.runtime.failures import FULL_CAPTURES, RECORDS_MAX
from vscrapy_magic.runtime.tracker import Output, OutputKind
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.failures import FailureRecord, read_failures
from vscrapy_magic.store.messages import CrawlState

MB = 1024 * 1024
BIG_BODIES = """
class Make:
    body = b"<p>" + b"some words " * 18_200
    def process_request(self, request, spider=None):
        # Each its own: what is kept alive shows in the memory of the process.
        body = b"%s %s" % (request.url.encode(), self.body)
        return HtmlResponse(request.url, body=body, request=request)
class S(scrapy.Spider):
    name = "s"
    custom_settings = {"DOWNLOADER_MIDDLEWARES": {Make: 1}, "CONCURRENT_REQUESTS": 8}
    async def start(self):
        for n in range(2000):
            yield page(n)
    def parse(self, response):
        text = response.text
        try:
            raise ValueError("always")
        except ValueError as exc:
            kept = exc  # a cycle: the exception, its traceback, this frame
            raise
"""
FLOOD = """
class Pipe:
    def process_item(self, item, spider=None):
        raise ValueError(f"always, also {item['n']}")
class S(scrapy.Spider):
    name = "s"
    custom_settings = {"ITEM_PIPELINES": {Pipe: 1}, "LOG_LEVEL": "CRITICAL"}
    async def start(self):
        for n in range(COUNT // 500):
            yield page(n)
    def parse(self, response):
        for n in range(500):
            yield {"n": n}
"""


def test_2000_failures_with_big_bodies_keep_a_few_of_them(store: Store) -> None:
    before: Any = store.client.info("memory")
    settings = {"LOG_LEVEL": "CRITICAL"}
    with Crawl(store, HEAD + BIG_BODIES, "s", settings=settings) as crawl:
        child = crawl.add_child()
        wait_until(lambda: crawl.view().totals.failures > 100, 60, "failures")
        process = psutil.Process(child.process.pid)
        at_first, most = process.memory_info().rss, 0
        while not crawl.view().over:
            try:
                most = max(most, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.1)
        assert crawl.wait(60).state is CrawlState.FINISHED
        after: Any = store.client.info("memory")
        print(json.dumps({"first": at_first, "most": most}))
        found = records(crawl)
        assert len(found) == 2000, crawl.logs()
        assert sum(record.response is not None for record in found) == FULL_CAPTURES
        assert most - at_first < 20 * MB
        assert after["used_memory"] - before["used_memory"] < 6 * MB


@pytest.mark.load
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [20_000, 100_000])
def test_a_flood_of_one_failure_is_counted_in_bounded_memory(store: Store, count: int) -> None:
    before: Any = store.client.info("memory")
    source = HEAD + FLOOD.replace("COUNT", str(count))
    with Crawl(store, source, "s") as crawl:
        child = crawl.add_child()
        wait_until(lambda: crawl.view().totals.failures > 1000, 60, "failures")
        process = psutil.Process(child.process.pid)
        at_first, most, begun = process.memory_info().rss, 0, time.monotonic()
        while not crawl.view().over and child.process.poll() is None:
            most = max(most, process.memory_info().rss)
            time.sleep(0.2)
        crawl.wait(60)
        after: Any = store.client.info("memory")
        found = records(crawl)
        told = {"rss_mb": (most - at_first) // MB, "s": round(time.monotonic() - begun)}
        told["redis_mb"] = (after["used_memory"] - before["used_memory"]) // MB
        print(json.dumps(told))
        assert sum(max(1, record.counted) for record in found) == count
        assert sum(not record.counted for record in found) == RECORDS_MAX
        assert crawl.view().totals.failures == count
        assert most - at_first < 30 * MB
        assert after["used_memory"] - before["used_memory"] < 20 * MB


def test_failures_that_are_only_counted_share_a_record_in_a_step() -> None:
    def output(group: str, tally: bool) -> Output:
        record = FailureRecord(
            kind="item", type="E", message="", traceback="", group=group, counted=int(tally)
        )
        data = msgspec.msgpack.encode(record)
        return Output(OutputKind.FAILURE, data=data, tally=group if tally else "")

    outputs = [output("a", False), *[output("b", True)] * 3, *[output("a", True)] * 2]
    batch = Batch(taken=[Taken(None, ends=False, outputs=outputs)])
    fields = batch.fields()
    found = read_failures(fields["failures"])
    assert fields["failure_count"] == 6
    assert Counter({(r.group, r.counted): 1 for r in found}) == {
        ("a", 0): 1,
        ("b", 3): 1,
        ("a", 2): 1,
    }
