"""A child in the debugger beside others: they go on, it keeps its lease, and it does not hang."""

import time

import psutil

from tests.attending import User
from tests.waiting import wait_until
from tests.worker.crew import Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import MEMBER_TTL_MS
from vscrapy_magic.store.messages import CrawlState

STOPS = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield page(0)
    def parse(self, response):
        n = int(response.text)
        if n == 0:  # one that is done soon: `start()` would stand still with its child
            for other in range(1, 60):
                yield page(other)
        if n == 5:
            breakpoint()
        yield {"n": n, "pid": os.getpid()}
"""
ALL = dict.fromkeys(range(60), 1)


def pid_of(crawl: Ordered, worker: str) -> int:
    """The process of the child that a worker has started last."""
    text = next(
        line.text
        for line in reversed(crawl.lines())
        if line.worker == worker and line.text.startswith("a child starts (process")
    )
    return int(text.partition("(process ")[2].rstrip(")"))


def test_others_go_on_and_the_lease_is_kept_for_longer_than_a_member_may_be_silent(
    store: Store,
) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        # Silence of 1 s would kill a child that is not known to be in the debugger.
        crawl = Ordered(store, STOPS, breaks=True, VSCRAPY_HANG_TIMEOUT=1)
        with User(store, crawl.crawl_id) as user:
            begun = time.monotonic()
            wait_until(lambda: crawl.view().totals.items >= 55, 30, str(crawl.view().totals))
            wait_until(lambda: time.monotonic() - begun > 2 * MEMBER_TTL_MS / 1000, 60)
            assert "5\n" in user.type("p n")
            user.type("c")
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == ALL
        assert len(crawl.pids()) == 2
        assert "not answer" not in crawl.log()


def test_unstarted_leases_of_a_slot_with_a_delay_go_to_the_others(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        crawl = Ordered(
            store, STOPS, breaks=True, DOWNLOAD_DELAY=0.05, CONCURRENT_REQUESTS=8, workers=1
        )
        with User(store, crawl.crawl_id) as user:
            # The one at the prompt, and perhaps one that is in the air.
            wait_until(lambda: crawl.view().totals.leased <= 2, 10, str(crawl.view().totals))
            crawl.change(workers=2)
            wait_until(lambda: crawl.view().totals.items >= 57, 30, str(crawl.view().totals))
            user.type("c")
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == ALL


def test_a_worker_that_is_killed_there_gives_its_request_to_another_which_breaks_there(
    store: Store,
) -> None:
    with (
        Workers(store.url, "--name", "w-1") as one,
        Workers(store.url, "--name", "w-2") as two,
    ):
        wait_until(lambda: len(workers(store)) == 2, 30, "two workers")
        crawl = Ordered(store, STOPS, breaks=True)
        with User(store, crawl.crawl_id) as user:
            victim = one if user.halt.worker == "w-1" else two
            child = psutil.Process(pid_of(crawl, user.halt.worker))
            psutil.Process(victim.pid).kill()
            child.wait(10)  # it ends with its supervisor, also in the debugger
            user.read()
            assert user.end == "gone"
            with User(store, crawl.crawl_id, user.halt.number) as again:
                assert again.halt.url == user.halt.url
                assert again.halt.worker != user.halt.worker
                again.type("c")
        wait_until(lambda: crawl.view().over, 60, "the end")
        assert crawl.view().state is CrawlState.FINISHED
        assert crawl.numbers() == ALL
        assert crawl.view().totals.failures == 0


def test_a_worker_that_is_told_to_go_leaves_the_debugger_first(store: Store) -> None:
    with (
        Workers(store.url, "--name", "w-1") as one,
        Workers(store.url, "--name", "w-2") as two,
    ):
        wait_until(lambda: len(workers(store)) == 2, 30, "two workers")
        crawl = Ordered(store, STOPS, breaks=True)
        with User(store, crawl.crawl_id) as user:
            leaving = one if user.halt.worker == "w-1" else two
            leaving.terminate()
            user.read()
            assert "leaves the crawl" in user.end
        assert leaving.wait(20) == 0
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == ALL


def test_a_crawl_that_is_killed_ends_a_child_in_the_debugger(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, STOPS, breaks=True)
        with User(store, crawl.crawl_id) as user:
            child = psutil.Process(pid_of(crawl, user.halt.worker))
            crawl.crawls.kill(crawl.crawl_id)
            child.wait(10)
            user.read()
            assert user.end == "gone"


def test_the_few_requests_that_are_left_need_not_wait_for_one_that_stands(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        crawl = Ordered(store, STOPS.replace("range(1, 60)", "range(4, 8)"), breaks=True)
        with User(store, crawl.crawl_id) as user:
            # But for one that its child had begun beside it.
            wait_until(lambda: crawl.view().totals.items >= 3, 30)
            user.type("c")
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys([0, 4, 5, 6, 7], 1)


STARTS_WITH_URLS = """
class S(scrapy.Spider):
    name = "s"
    start_urls = [f"data:text/plain,{n}" for n in range(60)]
    def parse(self, response):
        n = int(response.text)
        if n == 1:
            breakpoint()
        yield {"n": n, "pid": os.getpid()}
"""


def test_start_urls_that_are_left_are_taken_by_others(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w"):
        crawl = Ordered(store, STARTS_WITH_URLS, breaks=True)
        with User(store, crawl.crawl_id) as user:
            # But for the few that its child had begun.
            wait_until(lambda: crawl.view().totals.items >= 54, 30)
            user.type("c")
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == ALL
        stats = {
            name: int(n) for name, n in crawl.crawls.stats(crawl.crawl_id).items() if n.isdigit()
        }
        assert stats["scheduler/enqueued"] == stats["scheduler/dequeued"] == 60
