"""A server that is full, and commands that arrive late: nothing is written by halves, or twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vscrapy_magic.errors import StateError, StoreReadOnlyError
from vscrapy_magic.store.arrivals import Arrivals
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, Mover
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import SessionId, WorkerName, crawl_prefix
from vscrapy_magic.store.messages import CrawlState, SessionRecord, Step, WorkerRecord
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.presence import Liveness, Presence

from .driver import Child, order, requests

SESSION = SessionRecord(session=SessionId("mine"), host="h", pid=1)


@contextmanager
def full(store: Store) -> Iterator[None]:
    store.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        store.client.config_set("maxmemory", 0)


def dump(store: Store, crawl: Frontier) -> dict[bytes, Any]:
    """All that the server holds of a crawl."""
    client = store.client
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"stream": client.xrange,
    }
    keys = client.keys(f"{crawl_prefix(crawl.crawl_id)}*")
    return {key: read[client.type(key)](key) for key in keys}


def begun(store: Store) -> tuple[Frontier, Child]:
    """A crawl whose only child holds one lease of four requests."""
    crawl = order(store)
    child = Child(crawl, "a")
    (start,) = child.step(want=1).leases
    child.step(ended=(start.lease_id,), requests=requests(range(4)))
    return crawl, child


def test_a_full_server_takes_no_part_of_a_step_whatever_it_begins_with(on: Store) -> None:
    crawl, child = begun(on)
    (lease, *_) = child.step(want=1).leases
    before = dump(on, crawl)
    for fields in (
        {"ended": (lease.lease_id,), "item_count": 1, "items": b"1"},  # begins with a removal
        {"requests": requests(range(7, 9))},
        {"want": 1},
    ):
        with full(on), pytest.raises(StoreReadOnlyError, match="takes no writes"):
            child.step(**fields)
        assert dump(on, crawl) == before
        child.seq -= 1
    child.step(ended=(lease.lease_id,), item_count=1, items=b"1")
    assert Crawls(on).view(crawl.crawl_id).totals.items == 1


def test_on_a_full_server_nobody_is_taken_for_dead(on: Store) -> None:
    presence = Presence(on)
    worker = WorkerRecord(name=WorkerName("w"), host="h", pid=2, slots=8)
    crawl, child = begun(on)
    child.expire()
    with full(on):
        assert presence.beat_session(SESSION, ttl_ms=60_000).alive
        presence.beat_worker(worker)
        assert crawl.renew([child.token]).gone == ()
        assert [view.liveness for view in presence.sessions()] == [Liveness.LIVE]
        assert [view.liveness for view in presence.workers()] == [Liveness.LIVE]
        with pytest.raises(StoreReadOnlyError):
            crawl.reserve(child.token, worker.name)
        with pytest.raises(StoreReadOnlyError):
            order(on)
    assert len(child.step(want=1).leases) == 1


@pytest.mark.parametrize("how", ["stop", "kill", "cancel"])
def test_a_crawl_on_a_full_server_can_be_ended_and_gives_its_memory_back(
    on: Store, how: str
) -> None:
    crawl, child = begun(on)
    (lease,) = child.step(want=1).leases
    Presence(on).beat_worker(WorkerRecord(name=WorkerName("w"), host="h", pid=2, slots=8))
    crawls = Crawls(on)
    with full(on):
        if how == "stop":
            assert crawls.stop(crawl.crawl_id) is CrawlState.STOPPING
            child.step(released=(lease.lease_id,), item_count=1, items=b"what is in flight")
            assert crawl.leave(child.token) is CrawlState.STOPPED
            assert crawls.sweep(crawl.crawl_id)
        elif how == "kill":
            assert crawls.kill(crawl.crawl_id) is CrawlState.STOPPED
        else:
            crawls.cancel(crawl.crawl_id, Mover.SENDER, why="its sender is gone")
        left = {key.rpartition(b":")[2] for key in dump(on, crawl)}
    assert left <= {b"meta", b"stats", b"out", b"log"}
    assert crawls.view(crawl.crawl_id).over


def test_a_full_server_gives_out_and_forgets_what_is_acknowledged(on: Store) -> None:
    crawl, child = begun(on)
    for _ in range(2):
        child.step(item_count=1, items=b"1")
    arrivals = Arrivals(on, crawl.crawl_id)
    with full(on):
        arrived = arrivals.fetch(None, "0-0", with_refusal=True)
        assert len(arrived.outputs) == 2
        assert isinstance(arrived.refusal, StoreReadOnlyError)
        last = arrived.outputs[-1]
        assert arrivals.fetch(last.witness, "0-0", ack=last).outputs == []
        assert len(Outputs(on, crawl.crawl_id).read()) == 1
    assert arrivals.fetch(last.witness, "0-0", with_refusal=True).refusal is None


def test_a_step_that_comes_after_the_next_one_changes_nothing(store: Store) -> None:
    crawl, child = begun(store)
    late = Step(token=child.token, seq=child.seq + 1, want=2, item_count=1, items=b"1")
    crawl.step(late)
    crawl.step(late)  # sent once more: the connection had broken
    child.seq += 1
    child.step()
    before = dump(store, crawl)
    with pytest.raises(StateError, match="came after one that followed it"):
        crawl.step(late)
    assert dump(store, crawl) == before
    child.step()  # and the server has not gone back
    assert Crawls(store).view(crawl.crawl_id).totals.items == 1


def test_an_acknowledgement_that_comes_after_the_next_one_changes_nothing(store: Store) -> None:
    crawl, child = begun(store)
    outputs = Outputs(store, crawl.crawl_id)
    for number in range(3):
        child.step(item_count=1, items=b"%d" % number)
    first, second, third = outputs.read()
    outputs.ack(second)
    before = dump(store, crawl)
    outputs.ack(first)
    assert dump(store, crawl) == before
    assert not Crawls(store).view(crawl.crawl_id).over
    assert outputs.read(second.witness) == [third]


def test_why_a_crawl_is_rolled_back_is_told_with_its_state(store: Store) -> None:
    crawl, child = begun(store)
    child.step(item_count=1, items=b"1")
    (output,) = Outputs(store, crawl.crawl_id).read()
    store.client.delete(f"{crawl_prefix(crawl.crawl_id)}out")
    with pytest.raises(Exception, match="the server lost commit"):
        Outputs(store, crawl.crawl_id).ack(output)
    view = Crawls(store).view(crawl.crawl_id)
    assert view.state is CrawlState.STORE_ROLLED_BACK
    assert "run it again, on one with appendfsync always" in view.why
