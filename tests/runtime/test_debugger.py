"""A child at a `breakpoint()`: a real pdb for whoever attends, and code that goes on afterwards."""

import textwrap
from typing import Any

from tests.attending import User, halt_of
from tests.runtime.crawling import ChildProcess, Crawl
from tests.waiting import wait_until
from vscrapy_magic.store.breakpoints import Halts
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.pipes import Command, Phase, Report

HEAD = """
import asyncio, os, sys, threading, time
import scrapy
def page(n, **fields):
    meta = {**fields.pop("meta", {}), "download_slot": "pages"}
    return scrapy.Request(f"data:text/plain,{n}", meta=meta, **fields)
"""
STOPS_AT_ONE = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(4):
            yield page(n)
    def parse(self, response):
        n = int(response.text)
        if n == 1:
            breakpoint()
            n = self.more(n)
        yield {"n": n}
    def more(self, n):
        doubled = 2 * n
        return doubled
"""
LINE = HEAD.count("\n") + 10  # of the breakpoint


def crawl_of(store: Store, body: str = STOPS_AT_ONE, **fields: Any) -> Crawl:
    return Crawl(store, HEAD + textwrap.dedent(body), "s", **{"breaks": True, **fields})


def numbers(crawl: Crawl) -> list[Any]:
    return sorted(record["data"]["n"] for record in crawl.outputs()[0])


def finished(crawl: Crawl) -> list[Any]:
    assert crawl.wait().state is CrawlState.FINISHED, crawl.logs()
    for child in crawl.children:
        child.process.wait(10)
    return numbers(crawl)


def test_a_breakpoint_is_a_real_pdb_in_the_users_frame(store: Store) -> None:
    with crawl_of(store) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            halt = user.halt
            assert (halt.worker, halt.url) == ("w0", "data:text/plain,1")
            assert halt.place == f"spider.py, line {LINE}, in S.parse"
            assert "breakpoint on w0, data:text/plain,1\nspider.py, line" in user.banner
            assert user.banner.endswith(f"> spider.py({LINE})parse()\n-> breakpoint()\n(Pdb) ")
            assert f"{LINE}  ->\t            breakpoint()" in user.type("list")
            assert "1\n" in user.type("p n")
            assert "Oldest frame" in user.type("up")  # Scrapy is not above it
            x = user.type("n")
            import time

            time.sleep(2)
            print(crawl.logs())
            assert f"({LINE + 1})parse()" in x
            assert "--Call--" in user.type("s")
            user.type("n")
            assert "return doubled" in user.type("n")
            assert "parse()" in user.type("up")
            user.type("down")
            user.type("!doubled = 7")
            user.type("r")
            user.type("c")
            assert user.end == "it goes on"
        assert finished(crawl) == [0, 2, 3, 7]
        assert Halts(store, crawl.spec.crawl_id).standing() == []


def test_q_leaves_every_breakpoint_of_the_crawl(store: Store) -> None:
    body = STOPS_AT_ONE.replace("if n == 1", "if n >= 0")
    with crawl_of(store, body) as crawl:
        crawl.add_child()
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            user.type("q")
        assert finished(crawl) == [0, 2, 4, 6]


def test_c_goes_on_to_the_next_breakpoint(store: Store) -> None:
    body = STOPS_AT_ONE.replace("if n == 1", "if n > 1")
    with crawl_of(store, body) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            user.type("c")
        with User(store, crawl.spec.crawl_id, user.halt.number) as again:
            assert again.halt.url != user.halt.url
            again.type("c")
        assert finished(crawl) == [0, 1, 4, 6]


def test_interact_is_an_interpreter_with_the_names_of_the_frame(store: Store) -> None:
    with crawl_of(store) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            assert user.type("interact").endswith(">>> ")
            assert "41" in user.type("n + 40")
            assert "ZeroDivisionError" in user.type("1 / 0")
            assert user.type("for x in 'ab':").endswith("... ")
            user.type("    print(x)")
            assert "a\nb\n" in user.type("")
            assert user.type("exit()").endswith("(Pdb) ")
            assert "SystemExit" in user.type("raise SystemExit")
            user.type("c")
        assert finished(crawl) == [0, 2, 2, 3]


def test_the_prompt_comes_back_after_an_await_and_the_loop_goes_on_meanwhile(store: Store) -> None:
    body = """
    class S(scrapy.Spider):
        name = "s"
        async def start(self):
            for n in range(4):
                yield page(n)
        async def parse(self, response):
            n = int(response.text)
            if n == 1:
                breakpoint()
                waited = await self.crawler.engine.download_async(page(10))
                n = int(waited.text)
            yield {"n": n}
    """
    with crawl_of(store, body) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            user.type("n")
            assert "n = int(waited.text)" in user.type("n")
            assert "10" in user.type("p waited.text")
            user.type("c")
        assert finished(crawl) == [0, 2, 3, 10]


def test_stepping_ends_when_the_code_returns_to_scrapy(store: Store) -> None:
    with crawl_of(store) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            for _ in range(10):
                user.type("n")
                if user.end:
                    break
            assert user.end == "the code has returned, it goes on"
        assert finished(crawl) == [0, 2, 2, 3]


def test_code_of_a_thread_stops_alone(store: Store) -> None:
    body = """
    class S(scrapy.Spider):
        name = "s"
        async def start(self):
            for n in range(4):
                yield page(n)
        async def parse(self, response):
            n = int(response.text)
            if n == 1:
                n = await asyncio.to_thread(self.work, n)
            yield {"n": n}
        def work(self, n):
            breakpoint()
            return n + 10
    """
    with crawl_of(store, body) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            assert user.halt.url == "data:text/plain,1"
            wait_until(lambda: numbers(crawl) == [0, 2, 3], 20, "the other pages")
            user.type("!n = 5")
            user.type("c")
        assert finished(crawl) == [0, 2, 3, 15]


def test_nothing_typed_for_long_lets_the_code_go_on_with_a_warning(store: Store) -> None:
    with crawl_of(store, settings={"VSCRAPY_BREAK_TIMEOUT": 1}) as crawl:
        child = crawl.add_child()
        halt_of(store, crawl.spec.crawl_id)
        assert finished(crawl) == [0, 2, 2, 3]
        (said,) = [
            r
            for r in child.reports
            if "nobody typed anything for 1 s" in r.text.lower() and r.level == 30
        ]
        assert "VSCRAPY_BREAK_TIMEOUT" in said.text


def test_where_nobody_can_type_it_is_passed_with_one_warning_for_each_place(store: Store) -> None:
    body = STOPS_AT_ONE.replace("if n == 1", "if n >= 0")
    with crawl_of(store, body, breaks=False) as crawl:
        child = crawl.add_child()
        assert finished(crawl) == [0, 2, 4, 6]
        warnings = [r.text for r in child.reports if r.report is Report.LOG and "passed" in r.text]
        assert len(warnings) == 1
        assert f"spider.py, line {LINE}, in S.parse was passed" in warnings[0]


def test_a_crawl_that_is_stopped_leaves_the_debugger(store: Store) -> None:
    with crawl_of(store) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            crawl.crawls.stop(crawl.spec.crawl_id)
            user.read()
            assert user.end == "it goes on"
        assert crawl.wait(20).state is CrawlState.STOPPED
        assert 2 in numbers(crawl)  # what was in flight is finished


def test_a_worker_that_leaves_leaves_the_debugger(store: Store) -> None:
    with crawl_of(store) as crawl:
        child = crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            child.say(Command.STOP)
            user.read()
            assert "leaves the crawl" in user.end
        assert child.process.wait(20) == 0
        assert 2 in numbers(crawl)


def _phases(child: ChildProcess) -> list[str]:
    return [r.text for r in list(child.reports) if r.report is Report.PHASE]


def test_what_it_says_to_the_supervisor_and_the_secrets_that_it_hides(store: Store) -> None:
    with crawl_of(store) as crawl:
        child = crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            wait_until(lambda: _phases(child)[-1:] == [Phase.DEBUGGING], 10, "its phase")
            user.type("c")
        finished(crawl)
        phases = _phases(child)
        at = phases.index(Phase.DEBUGGING)
        assert phases[at + 1] == Phase.RUNNING


def test_unstarted_leases_and_what_is_done_go_back_when_the_loop_stands_still(store: Store) -> None:
    body = """
    class S(scrapy.Spider):
        name = "s"
        custom_settings = {"CONCURRENT_REQUESTS": 4, "DOWNLOAD_DELAY": 0.01}
        async def start(self):
            for n in range(100):
                yield page(n)
        def parse(self, response):
            n = int(response.text)
            if n == 20:
                breakpoint()
            yield {"n": n}
    """
    with crawl_of(store, body) as crawl:
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            wait_until(lambda: crawl.view().totals.leased <= 5, 10, str(crawl.view().totals))
            done = len(numbers(crawl))
            crawl.add_child()
            wait_until(lambda: crawl.view().totals.items >= 95, 30, str(crawl.view().totals))
            assert crawl.view().totals.leased + crawl.view().totals.items >= 100
            assert done < 95
            user.type("c")
        assert finished(crawl) == list(range(100)), crawl.logs()


FAILS = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(4):
            yield page(n)
    def parse(self, response):
        n = int(response.text)
        if n >= 1:
            raise LookupError(f"no {n}")
        yield {"n": n}
"""


def test_pdb_stops_at_the_first_failure_of_the_crawl_in_its_frame(store: Store) -> None:
    with crawl_of(store, FAILS, breaks=False, pdb=True) as crawl:
        crawl.add_child()
        crawl.add_child()
        with User(store, crawl.spec.crawl_id) as user:
            assert "LookupError: no " in user.banner
            assert "raise LookupError" in user.banner
            assert "'" in user.type("p response.text")
            user.type("n")
            assert user.end == "it goes on"
        assert finished(crawl) == [0]
        assert crawl.view().totals.failures == 3


def test_without_pdb_failures_stop_nowhere(store: Store) -> None:
    with crawl_of(store, FAILS) as crawl:
        crawl.add_child()
        assert finished(crawl) == [0]
