"""How children are stopped: asked, then SIGTERM, then SIGKILL; one that answers gets its time."""

import signal

import psutil
import pytest

from tests.waiting import wait_until
from tests.worker.crew import HANGING, PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

CLOSING = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        signal.signal(signal.SIGTERM, lambda *_: print("deaf", flush=True))
        print("started", flush=True)
        while True:
            yield page(1, dont_filter=True)
            await asyncio.sleep(0.1)
    def parse(self, response):
        pass
class Slow:
    async def close_spider(self):
        print("closing", flush=True)
        await asyncio.sleep(SECONDS)
        print("closed well", flush=True)
"""


def closing(store: Store, seconds: float, **settings: object) -> Ordered:
    source = f"SECONDS = {seconds}\n" + CLOSING
    return Ordered(store, source, ITEM_PIPELINES={"spider.Slow": 1}, **settings)


def child_of(crew: Workers) -> psutil.Process:
    (child,) = crew.zygote().children()
    return child


def test_child_that_hangs_gets_sigterm_then_sigkill(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, HANGING)
        crawl.wait_for_line("hangs")
        child = child_of(crew)
        crawl.crawls.stop(crawl.crawl_id)
        wait_until(lambda: not child.is_running(), 3 * 3, "end of the child")
        crawl.wait_for_line("the spider does not answer the stop: killed")
        assert "deaf" in crawl.log()
        assert crawl.wait(10).state is CrawlState.STOPPED


def test_child_that_answers_gets_time_to_close_its_spider(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = closing(store, 5)  # longer than one that does not answer gets
        crawl.wait_for_line("started")
        crawl.crawls.stop(crawl.crawl_id)
        assert crawl.wait(30).state is CrawlState.STOPPED
        crawl.wait_for_line("closed well")
        assert "deaf" not in crawl.log()


def test_time_to_close_is_a_setting(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = closing(store, 3600, VSCRAPY_CLOSE_TIMEOUT=1)
        crawl.wait_for_line("started")
        child = child_of(crew)
        crawl.crawls.stop(crawl.crawl_id)
        wait_until(lambda: not child.is_running(), 3 * 2, "end of the child")
        crawl.wait_for_line("the spider did not end within 1 s of the stop: killed")


@pytest.mark.parametrize("how", ["kill", "cancel"])
def test_children_of_a_killed_crawl_are_killed_at_once(store: Store, how: str) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, HANGING)
        crawl.wait_for_line("hangs")
        child = child_of(crew)
        if how == "kill":
            crawl.crawls.kill(crawl.crawl_id)
        else:
            crawl.crawls.cancel(crawl.crawl_id, "sender", why="a test")  # type: ignore[arg-type]
        wait_until(lambda: not child.is_running(), 1, "end of the child")


def test_sigterm_lets_a_worker_finish_its_leases_and_the_rest_goes_to_others(store: Store) -> None:
    with Workers(store.url, "--name", "w1") as first, Workers(store.url, "--name", "w2"):
        crawl = Ordered(store, PAGES, args={"count": "120", "delay": "0.05"})
        crawl.wait_for_members(2)
        first.terminate()
        assert first.wait(3 * 10) == 0
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(120), 1)
        wait_until(lambda: crawl.log().count("the child has ended") == 2, 10, "two ends")
        assert not any("killed" in line.text for line in crawl.lines())


def test_second_sigterm_ends_a_worker_now(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, HANGING)
        crawl.wait_for_line("hangs")
        child, zygote = child_of(crew), crew.zygote()
        crew.terminate()
        wait_until(lambda: workers(store)["w"].record.draining, 3, "the first one is heard")
        crew.process.send_signal(signal.SIGTERM)
        assert crew.wait(3) == 0
        assert not child.is_running()
        assert not zygote.is_running()
        assert not crawl.view().members  # its leases are free already


def test_children_die_with_a_killed_supervisor(store: Store) -> None:
    with Workers(store.url, "--name", "w") as crew:
        crawl = Ordered(store, HANGING)
        crawl.wait_for_line("hangs")
        child, zygote = child_of(crew), crew.zygote()
        crew.process.kill()
        wait_until(lambda: not (child.is_running() or zygote.is_running()), 3, "their end")
