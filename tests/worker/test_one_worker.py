"""One worker process, started as users do: from the order to the end, and its figures."""

import time

import psutil

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState


def test_crawl_is_done_by_a_child_that_the_zygote_forked(store: Store, record_property) -> None:  # type: ignore[no-untyped-def]
    with Workers(store.url, "--name", "w1") as crew:
        wait_until(lambda: "w1" in workers(store) and crew.ready(), 20, "a worker")
        figures = []
        for _ in range(3):
            ordered = time.monotonic()
            crawl = Ordered(store, PAGES)
            wait_until(lambda: crawl.view().totals.items, 20, "an item")  # noqa: B023
            figures.append(1000 * (time.monotonic() - ordered))
            assert crawl.wait().state is CrawlState.FINISHED
            assert sorted(crawl.numbers()) == list(range(10)), crawl.log()
            assert {item["pid"] for item in crawl.items()} == crawl.pids()
        print(f"order to first item: {[round(f) for f in figures]} ms")
        record_property("order_to_first_item_ms", min(figures))
        zygote = crew.zygote()
        wait_until(lambda: not zygote.children(), 5, "children reaped")
    assert not psutil.pid_exists(zygote.pid)
    assert "w1" not in workers(store)
