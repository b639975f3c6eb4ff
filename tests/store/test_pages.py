"""Recorded pages on their way through the server: bounded, each once, and none of older workers."""

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.outputs import Outputs

from .driver import Child, order, requests


def test_once_a_packet_was_too_much_no_later_one_is_kept_and_all_are_counted(store: Store) -> None:
    crawl = order(store, record_bytes=100)
    child = Child(crawl, "a")
    assert not child.step(record_count=2, records=b"x" * 60).records_full
    assert child.step(record_count=3, records=b"y" * 60, item_count=1, items=b"i").records_full
    assert child.step(record_count=1, records=b"z").records_full
    child.step(records_left=4)
    child.again()
    view = Crawls(store).view(crawl.crawl_id)
    assert (view.recorded, view.unrecorded) == (2, 8)
    found = [
        (o.record_count, o.records, o.item_count) for o in Outputs(store, crawl.crawl_id).read()
    ]
    assert found == [(2, b"x" * 60, 0), (0, b"", 1)]


def test_pages_that_are_not_collected_hold_the_crawl_up_as_items_do(store: Store) -> None:
    crawl = order(store, record_bytes=1_000_000, out_bytes_max=1000)
    child = Child(crawl, "a")
    (start,) = child.step(want=1).leases
    child.step(ended=(start.lease_id,), requests=requests(range(4)))
    assert child.step(record_count=1, records=b"x" * 2000, want=1).leases == ()
    outputs = Outputs(store, crawl.crawl_id)
    assert Crawls(store).view(crawl.crawl_id).state is CrawlState.WAITING
    outputs.ack(outputs.read()[-1])
    assert child.step(want=1).leases


def test_entries_of_a_crawl_that_is_not_recorded_say_nothing_of_pages(store: Store) -> None:
    crawl = order(store)
    Child(crawl, "a").step(item_count=1, items=b"i")
    (entry,) = Outputs(store, crawl.crawl_id).read()
    assert (entry.record_count, entry.records) == (None, b"")
