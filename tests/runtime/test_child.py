"""What a child does with spiders that are not plain; pages are `data:` addresses."""

import re
import textwrap
from collections import Counter
from typing import Any

import pytest

from tests.runtime.crawling import Crawl
from tests.waiting import wait_until
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.failures import read_failures
from vscrapy_magic.store.messages import CloseLimits, CrawlState
from vscrapy_magic.store.pipes import Command, ExitCode, Report

HEAD = """
import asyncio, dataclasses, datetime, decimal, os, time
import scrapy
from scrapy import signals
from scrapy.exceptions import CloseSpider, DontCloseSpider, DropItem
def page(n, **fields):
    meta = {**fields.pop("meta", {}), "download_slot": "pages"}
    return scrapy.Request(f"data:text/plain,{n}", meta=meta, **fields)
"""


def crawl_of(store: Store, body: str, **fields: Any) -> Crawl:
    return Crawl(store, HEAD + textwrap.dedent(body), "s", **fields)


def run(store: Store, body: str, children: int = 1, **fields: Any) -> Crawl:
    with crawl_of(store, body, **fields) as crawl:
        for _ in range(children):
            crawl.add_child()
        crawl.wait()
        for child in crawl.children:
            child.process.wait(10)
        return crawl


def numbers(crawl: Crawl) -> list[Any]:
    return sorted(record["data"]["n"] for record in crawl.outputs()[0])


LONG_START = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(3000):
            yield page(n)
            if n % 500 == 0:
                yield {"n": 100000 + n}
    def parse(self, response):
        yield {"n": int(response.text)}
"""


@pytest.mark.parametrize("children", [1, 2])
def test_long_start_is_published_in_parts(store: Store, children: int) -> None:
    crawl = run(store, LONG_START, children)
    assert numbers(crawl) == [*range(3000), *range(100000, 103000, 500)], crawl.logs()


def test_start_killed_between_its_parts_repeats_nothing(store: Store) -> None:
    with crawl_of(store, LONG_START) as crawl:
        victim = crawl.add_child(VSCRAPY_FAIL="mid_part")
        assert victim.process.wait(20) == -9
        crawl.add_child()
        assert crawl.wait().state is CrawlState.FINISHED
        assert numbers(crawl) == [*range(3000), *range(100000, 103000, 500)], crawl.logs()


def test_start_that_waits_for_its_own_pages_goes_on(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            done = 0
            async def start(self):
                for n in range(5):
                    yield page(n)
                    while self.done <= n:
                        await asyncio.sleep(0.01)
            def parse(self, response):
                self.done += 1
                yield {"n": int(response.text)}
        """,
    )
    assert numbers(crawl) == [0, 1, 2, 3, 4], crawl.logs()


def test_values_of_many_types_reach_the_callback(store: Store) -> None:
    crawl = run(
        store,
        """
        @dataclasses.dataclass
        class Point:
            x: int
        class Thing(scrapy.Item):
            name = scrapy.Field()
        VALUES = {
            "set": {1, 2}, "tuple": (1, b"x"), "date": datetime.date(2020, 1, 2),
            "when": datetime.datetime(2020, 1, 2, 3), "money": decimal.Decimal("1.10"),
            "point": Point(3), "thing": Thing(name="n"), 5: "five", "big": 2**80,
        }
        class S(scrapy.Spider):
            name = "s"
            async def start(self):
                yield page(1, callback=self.first, meta={"values": VALUES}, headers={"A": "b"})
            def first(self, response):
                yield page(2, callback=self.second, errback=self.failed,
                           cb_kwargs={"values": response.meta["values"], "page": response})
            def second(self, response, values, page):
                assert page.url == "data:text/plain,1" and page.meta["values"] == VALUES
                yield {"n": int(values == VALUES), "type": type(values["thing"]).__name__}
            def failed(self, failure):
                yield {"n": repr(failure)}
        """,
    )
    assert [r["data"] for r in crawl.outputs()[0]] == [{"n": 1, "type": "Thing"}], crawl.logs()


def test_request_that_cannot_leave_runs_under_its_parents_lease(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            async def start(self):
                yield page(1)
            def parse(self, response):
                local = object()
                for n in (7, 7, 8):
                    yield page(n, callback=lambda r, n=n: self.inner(r, local, n))
            def inner(self, response, local, n):
                yield {"n": n}
                yield page(n * 10, callback=self.last)
            def last(self, response):
                yield {"n": int(response.text)}
        """,
        2,
    )
    assert numbers(crawl) == [7, 8, 70, 80], crawl.logs()
    assert "stays on this worker" in crawl.logs()


def test_errors_become_failures_and_are_counted(store: Store) -> None:
    crawl = run(
        store,
        """
        class Pipe:
            def process_item(self, item, spider=None):
                if item["n"] == 2:
                    raise ValueError("in the pipeline")
                if item["n"] == 3:
                    raise DropItem("no")
                return item
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"ITEM_PIPELINES": {Pipe: 1}}
            async def start(self):
                for n in range(5):
                    yield page(n)
                raise KeyError("in start")
            def parse(self, response):
                n = int(response.text)
                yield {"n": n}
                if n == 4:
                    raise RuntimeError("in the callback")
        """,
    )
    assert numbers(crawl) == [0, 1, 4], crawl.logs()
    failures = crawl.outputs()[1]
    kinds = Counter((f["kind"], f["type"]) for f in failures)
    assert kinds == {
        ("item", "ValueError"): 1,
        ("callback", "RuntimeError"): 1,
        ("start", "KeyError"): 1,
    }
    callback = next(f for f in failures if f["kind"] == "callback")
    assert callback["url"] == "data:text/plain,4"
    assert callback["callback"] == "parse"
    assert "spider.py" in callback["traceback"]
    (record,) = [
        failure
        for entry in crawl.raw_outputs()
        for failure in read_failures(entry.failures)
        if failure.kind == "callback"
    ]
    assert re.fullmatch(r"spider\.py, line \d+, in S\.parse", record.place)
    assert record.frames[-1].source == 'raise RuntimeError("in the callback")'
    assert record.frames[-1].locals["n"] == "4"
    assert record.response is not None
    assert record.response.body == b"4"
    assert record.worker == crawl.children[0].order.worker
    assert any("Spider opened" in line for line in record.log)
    assert crawl.stats()["item_dropped_count"] == 1
    assert crawl.stats()["spider_exceptions/RuntimeError"] == 1


def test_close_spider_ends_the_crawl_everywhere_with_its_reason(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"CONCURRENT_REQUESTS": 2}
            async def start(self):
                for n in range(2000):
                    yield page(n)
            async def parse(self, response):
                await asyncio.sleep(0.01)
                yield {"n": int(response.text)}
                if int(response.text) == 20:
                    raise CloseSpider("enough")
            def closed(self, reason):
                self.logger.info("closed with %s", reason)
        """,
        2,
    )
    assert crawl.view().close_reason == "enough", crawl.logs()
    assert crawl.view().state is CrawlState.FINISHED
    assert crawl.logs().count("closed with enough") == 2
    assert 20 <= len(numbers(crawl)) < 200


def test_item_limit_of_the_crawl_ends_it(store: Store) -> None:
    crawl = run(
        store,
        LONG_START,
        2,
        settings={"CLOSESPIDER_ITEMCOUNT": 50},
        limits=CloseLimits(items=50),
    )
    assert crawl.view().close_reason == "closespider_itemcount", crawl.logs()


IDLE = """
class S(scrapy.Spider):
    name = "s"
    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.idle, signals.spider_idle)
        spider.rounds = 0
        return spider
    async def start(self):
        yield page(0)
    def parse(self, response):
        yield {"n": int(response.text)}
    def idle(self, spider):
        self.rounds += 1
        REACT
"""


def test_requests_made_when_idle_are_done_before_the_end(store: Store) -> None:
    react = "self.rounds < 4 and self.crawler.engine.crawl(page(self.rounds))"
    crawl = run(store, IDLE.replace("REACT", react))
    assert numbers(crawl) == [0, 1, 2, 3], crawl.logs()
    assert crawl.view().close_reason == "finished"


def test_spider_kept_open_when_idle_is_asked_again(store: Store) -> None:
    react = "\n        if self.rounds < 3: raise DontCloseSpider"
    crawl = run(store, IDLE.replace("REACT", react))
    assert numbers(crawl) == [0], crawl.logs()
    assert crawl.view().close_reason == "finished"


def test_spider_may_give_its_own_reason_when_idle(store: Store) -> None:
    crawl = run(store, IDLE.replace("REACT", "raise CloseSpider('bored')"), 2)
    assert crawl.view().close_reason == "bored", crawl.logs()


def test_duplicates_are_dropped_once_told_and_counted(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"DUPEFILTER_DEBUG": True}
            @classmethod
            def from_crawler(cls, crawler, *args, **kwargs):
                spider = super().from_crawler(crawler, *args, **kwargs)
                crawler.signals.connect(spider.dropped, signals.request_dropped)
                return spider
            def dropped(self, request):
                self.logger.info("dropped one")
            async def start(self):
                for n in range(10):
                    yield page(n)
            def parse(self, response):
                yield {"n": int(response.text)}
                for n in range(10):
                    yield page(n)
        """,
        2,
    )
    assert numbers(crawl) == list(range(10)), crawl.logs()
    assert crawl.stats()["dupefilter/filtered"] == 100
    assert crawl.logs().count("dropped one") == 100
    assert crawl.logs().count("Filtered duplicate request") == 100
    assert crawl.stats()["scheduler/enqueued"] == crawl.stats()["scheduler/dequeued"] == 10


def test_one_request_at_a_time_keeps_scrapys_order(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            custom_settings = {"CONCURRENT_REQUESTS": 1}
            async def start(self):
                yield page(1)
                yield page(2)
            def parse(self, response):
                n = int(response.text)
                yield {"n": n}
                if n < 10:
                    yield page(n * 10)
                    yield page(n * 10 + 1, priority=1)
        """,
    )
    order = [record["data"]["n"] for record in crawl.outputs()[0]]
    assert sorted(order) == [1, 2, 10, 11, 20, 21], crawl.logs()
    assert order.index(11) < order.index(10)
    assert order.index(21) < order.index(20)


def test_ping_is_answered_and_a_stopped_child_leaves_the_rest_to_others(store: Store) -> None:
    body = LONG_START.replace("def parse", "async def parse").replace(
        '        yield {"n": int', '        await asyncio.sleep(0.005)\n        yield {"n": int'
    )
    with crawl_of(store, body.replace("3000", "600")) as crawl:
        crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages > 20, 20, "twenty pages")
        second = crawl.add_child()
        wait_until(lambda: "running" in [r.text for r in second.reports], 20, "a second child")
        second.say(Command.PING, 7)
        wait_until(lambda: any(r.report is Report.PONG for r in second.reports), 10, "an answer")
        second.say(Command.STOP)
        assert second.process.wait(20) == ExitCode.DONE, crawl.logs()
        crawl.wait()
        assert numbers(crawl) == [*range(600), *range(100000, 100600, 500)], crawl.logs()


def test_stopped_crawl_finishes_what_is_begun_and_sends_nothing_more(store: Store) -> None:
    with crawl_of(store, LONG_START, settings={"DOWNLOAD_DELAY": 0.2}) as crawl:
        crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages >= 3, 20, "three pages")
        before = crawl.view().totals.pages
        crawl.crawls.stop(crawl.spec.crawl_id)
        view = crawl.wait(10)
        assert view.state is CrawlState.STOPPED, crawl.logs()
        assert view.totals.pages <= before + 2
        assert crawl.children[0].process.wait(10) == ExitCode.DONE


def test_child_whose_leases_went_to_others_throws_its_work_away(store: Store) -> None:
    body = LONG_START.replace("3000", "400").replace(
        '        yield {"n": int', '        time.sleep(0.01)\n        yield {"n": int'
    )
    with crawl_of(store, body) as crawl:
        first = crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages > 20, 20, "twenty pages")
        # Judged dead by somebody, while it is very much alive.
        crawl.frontier.reclaim(first.order.token)
        assert first.process.wait(30) == ExitCode.MEMBER_GONE, crawl.logs()
        crawl.add_child()
        assert crawl.wait().state is CrawlState.FINISHED
        assert numbers(crawl) == [*range(400), 100000], crawl.logs()


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("no_such_function_anywhere()", ExitCode.FATAL, "no_such_function_anywhere"),
        ("import no_such_module_anywhere", ExitCode.UNFIT, "pip install no_such_module_anywhere"),
    ],
)
def test_source_that_cannot_be_loaded_is_fatal_or_unfit_here_and_told(
    store: Store, source: str, code: ExitCode, said: str
) -> None:
    with crawl_of(store, source) as crawl:
        child = crawl.add_child()
        assert child.process.wait(20) == code
        wait_until(lambda: any(r.report is Report.FATAL for r in child.reports), 5, "the reason")
        assert said in crawl.logs()
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_spider_that_cannot_be_made_is_fatal(store: Store) -> None:
    body = """
        class S(scrapy.Spider):
            name = "s"
            def __init__(self, must, **kw):
                super().__init__(**kw)
        """
    with crawl_of(store, body) as crawl:
        child = crawl.add_child()
        assert child.process.wait(20) == ExitCode.FATAL, crawl.logs()
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_child_ends_at_once_when_its_parent_is_gone(store: Store) -> None:
    body = LONG_START.replace(
        '        yield {"n": int', '        time.sleep(60)\n        yield {"n": int'
    )
    with crawl_of(store, body) as crawl:
        child = crawl.add_child()
        wait_until(lambda: "running" in [r.text for r in child.reports], 20, "a running child")
        import os

        os.close(child.control)
        assert child.process.wait(5) == ExitCode.PARENT_GONE
        child.control = os.open("/dev/null", os.O_RDONLY)
        crawl.crawls.kill(crawl.spec.crawl_id)


def test_crawl_that_is_over_ends_its_children(store: Store) -> None:
    with crawl_of(store, LONG_START, settings={"DOWNLOAD_DELAY": 0.1}) as crawl:
        child = crawl.add_child()
        wait_until(lambda: crawl.view().totals.pages >= 3, 20, "three pages")
        crawl.crawls.kill(crawl.spec.crawl_id)
        assert child.process.wait(20) == ExitCode.DONE, crawl.logs()
        assert crawl.view().state is CrawlState.STOPPED


def test_a_file_is_a_module_of_its_name_as_with_runspider(store: Store) -> None:
    crawl = run(
        store,
        """
        class S(scrapy.Spider):
            name = "s"
            async def start(self):
                yield page(1)
            def parse(self, response):
                yield {"n": __name__}
        if __name__ == "__main__":
            raise RuntimeError("this is for `python spider.py`")
        """,
    )
    assert numbers(crawl) == ["spider"], crawl.logs()
