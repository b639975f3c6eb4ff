"""A spider that does not answer: shown with its line, killed later, unless it is stopped."""

import signal
import time

import psutil

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

HANGS_AT_ONE = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        for n in range(5):
            yield page(n)
    def parse(self, response):
        if response.text == "1":
            self.hang()
        yield {"n": int(response.text)}
    def hang(self):
        %s
"""
KEEPS_THE_INTERPRETER = "ctypes.PyDLL(None).sleep(13)"


def test_silent_spider_is_shown_with_its_line(store: Store) -> None:
    with Workers(store.url, "-n", "1", "--name", "w"):
        asleep = Ordered(store, HANGS_AT_ONE % "time.sleep(13)")
        greedy = Ordered(store, HANGS_AT_ONE % KEEPS_THE_INTERPRETER)
        line = asleep.wait_for_line("has not answered for 10 s", 3 * 10)
        source = line.text.splitlines()
        assert "; it is at spider.py, line 18, in hang" in source[0], line.text
        assert source[-1].strip() == "time.sleep(13)"
        assert (line.source, line.level) == ("worker", 30)
        greedy.wait_for_line("its stack comes on stderr")
        stack = greedy.wait_for_line('spider.py", line 18 in hang')
        assert stack.source == "stderr"
        asleep.wait_for_line("the spider answers again")
        assert asleep.wait().state is CrawlState.FINISHED
        assert asleep.numbers() == dict.fromkeys(range(5), 1)
        assert greedy.wait().state is CrawlState.FINISHED


def test_request_that_hangs_for_ever_is_given_up_after_three_kills(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        source = HANGS_AT_ONE % "time.sleep(3600)"
        crawl = Ordered(store, source, VSCRAPY_HANG_TIMEOUT=1)
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4], 1)
        kinds = [(record.kind, record.type) for record in crawl.failures()]
        assert kinds == [*[("crash", "Hang")] * 3, ("buried", "buried")]
        assert crawl.failures()[0].url == "data:text/plain,1"
        assert view.totals.failures == 4
        text = (
            "the child was killed: it did not answer for 1 s while running; "
            "the request that it worked on gets a strike"
        )
        assert crawl.log().count(text) == 3, crawl.log()
        line = crawl.wait_for_line("a request is given up: the process died of it three times")
        assert line.level == 40


def test_stopped_process_is_not_taken_for_a_hanging_one(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        args = {"count": "100", "delay": "0.05"}
        crawl = Ordered(store, PAGES, args=args, VSCRAPY_HANG_TIMEOUT=3)
        wait_until(crawl.items, 20, "items")
        (child,) = crew.zygote().children()
        child.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() - stopped > 7, 20)
        assert child.status() == psutil.STATUS_STOPPED
        child.send_signal(signal.SIGCONT)
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(100), 1)
        assert len(crawl.pids()) == 1
        assert "not answer" not in crawl.log()
