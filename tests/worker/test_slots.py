"""Crawls share workers: what does not fit waits and says so, and nobody is left out for long."""

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

LONG = {"count": "150", "delay": "0.1"}
FULL = "all slots of the workers are taken"


def test_crawl_without_a_slot_waits_says_why_and_runs_when_one_is_free(store: Store) -> None:
    with Workers(store.url, "--name", "w", "--slots", "1"):
        first = Ordered(store, PAGES, args={"count": "60", "delay": "0.1"})
        first.wait_for_members(1)
        second = Ordered(store, PAGES)
        wait_until(lambda: second.view().why == FULL, 15, "why")
        assert second.view().state is CrawlState.QUEUED
        assert workers(store)["w"].record.used == 1
        assert first.wait().state is CrawlState.FINISHED
        assert second.wait(10).state is CrawlState.FINISHED
        assert second.view().why == ""
        assert len(first.pids()) == 1


def test_crawl_with_several_workers_makes_room_for_one_without(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w", "--slots", "1"):
        first = Ordered(store, PAGES, args=LONG)
        first.wait_for_members(2)
        second = Ordered(store, PAGES)
        assert second.wait(15).state is CrawlState.FINISHED
        assert not first.view().over
        assert first.wait(60).state is CrawlState.FINISHED
        assert first.numbers() == dict.fromkeys(range(150), 1)


def test_crawl_takes_no_more_workers_than_it_may(store: Store) -> None:
    with Workers(store.url, "-n", "3", "--name", "w"):
        crawl = Ordered(store, PAGES, args=LONG, workers=2)
        crawl.wait_for_members(2)
        wait_until(lambda: len(crawl.items()) > 60, 30, "items")
        assert len(crawl.pids()) == 2
        used = sorted(view.record.used for view in workers(store).values())
        assert used == [0, 1, 1]


def test_two_crawls_run_on_one_worker_at_once(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        first = Ordered(store, PAGES, args=LONG)
        first.wait_for_members(1)
        second = Ordered(store, PAGES)
        assert second.wait(10).state is CrawlState.FINISHED
        assert not first.view().over
