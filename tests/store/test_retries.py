"""Failed requests are put back once, unfiltered, and a crawl that is over goes on with them."""

import msgspec
import pytest

from tests.store.driver import Child, order, requests
from vscrapy_magic.errors import StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, Mover
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import SessionId, crawl_key, global_key
from vscrapy_magic.store.messages import CookieChange, CrawlState, LeaseKind
from vscrapy_magic.store.retries import FailedRequest, Retries, unmasked

OWNER = SessionId("s2")


def payload(number: int, **fields: object) -> bytes:
    return msgspec.msgpack.encode({"url": f"http://site/{number}", **fields})


def failed(number: int, delivered: bytes = b"", **fields: object) -> FailedRequest:
    return FailedRequest(number, payload(number, **fields), delivered)


def finished(store: Store, failures: int = 1) -> Frontier:
    """A crawl of 20 pages that is over, with a cookie and some failures."""
    frontier = order(store, session=SessionId("s1"))
    child = Child(frontier, "w1")
    (start,) = child.step(want=1).leases
    child.step(ended=(start.lease_id,), requests=requests(range(20)))
    leases = child.step(want=20).leases
    child.step(
        ended=tuple(lease.lease_id for lease in leases),
        failures=b"x" * failures,
        failure_count=failures,
        cookies=(CookieChange("jar", b"x"),),
    )
    (idle,) = child.step(want=1).leases
    assert idle.kind is LeaseKind.IDLE
    child.step(ended=(idle.lease_id,))
    frontier.leave(child.token)
    assert Crawls(store).view(frontier.crawl_id).state is CrawlState.FINISHED
    return frontier


def test_crawl_that_is_over_goes_on_and_ends_again(store: Store) -> None:
    frontier = finished(store)
    crawl_id = frontier.crawl_id
    put = Retries(store).put_back(crawl_id, [failed(5), failed(6, priority=3)], OWNER)
    assert (put.before, put.numbers, put.seen_known) == (CrawlState.FINISHED, {5, 6}, True)
    assert put.reopened
    view = Crawls(store).view(crawl_id)
    assert (view.state, view.session, view.ended_ms) == (CrawlState.QUEUED, OWNER, 0)
    assert view.totals.queued == 2
    assert crawl_id.encode() in store.client.zrange(global_key("crawls:live"), 0, -1)
    assert store.client.ttl(crawl_key(crawl_id, "meta")) == -1

    child = Child(frontier, "w2")
    leases = child.step(want=5).leases
    assert [lease.payload for lease in leases] == [payload(6, priority=3), payload(5)]
    assert all(lease.attempt == 2 for lease in leases)
    reply = child.step(ended=tuple(lease.lease_id for lease in leases), requests=requests([3, 99]))
    assert len(reply.dropped) == 1  # it was seen before the end
    (lease,) = child.step(want=1).leases
    assert lease.payload == b"99"
    child.step(ended=(lease.lease_id,))
    (idle,) = child.step(want=1).leases
    child.step(ended=(idle.lease_id,))
    frontier.leave(child.token)
    view = Crawls(store).view(crawl_id)
    assert (view.state, view.close_reason) == (CrawlState.FINISHED, "finished")
    Crawls(store).sweep(crawl_id)
    assert crawl_id.encode() not in store.client.zrange(global_key("crawls:live"), 0, -1)
    assert store.client.ttl(crawl_key(crawl_id, "meta")) > 0


def test_each_is_put_back_once(store: Store) -> None:
    frontier = finished(store)
    retries = Retries(store)
    assert retries.put_back(frontier.crawl_id, [failed(5)], OWNER).numbers == {5}
    put = retries.put_back(frontier.crawl_id, [failed(5), failed(6)], OWNER)
    assert (put.numbers, put.reopened) == ({6}, False)
    assert Crawls(store).stats(frontier.crawl_id)["retry/vretry"] == b"2"


def test_nothing_new_leaves_a_crawl_over(store: Store) -> None:
    frontier = finished(store)
    retries = Retries(store)
    retries.put_back(frontier.crawl_id, [failed(5)], OWNER)
    Crawls(store).kill(frontier.crawl_id)
    assert not retries.put_back(frontier.crawl_id, [failed(5)], OWNER).reopened
    assert Crawls(store).view(frontier.crawl_id).state is CrawlState.STOPPED


def test_what_was_delivered_before_goes_along(store: Store) -> None:
    frontier = finished(store)
    Retries(store).put_back(frontier.crawl_id, [failed(5, b"12345678"), failed(6)], OWNER)
    child = Child(frontier, "w2")
    first, second = sorted(child.step(want=5).leases, key=lambda lease: lease.payload)
    assert (first.has_parts, second.has_parts) == (True, False)
    assert frontier.published(first.origin) == b"12345678"
    child.step(ended=(first.lease_id, second.lease_id))
    assert frontier.published(first.origin) == b""


def test_running_crawl_takes_them_and_keeps_its_owner(store: Store) -> None:
    frontier = order(store, session=SessionId("s1"))
    child = Child(frontier, "w1")
    child.step(want=1)
    put = Retries(store).put_back(frontier.crawl_id, [failed(5)], OWNER)
    assert (put.numbers, put.reopened) == ({5}, False)
    assert Crawls(store).view(frontier.crawl_id).session == SessionId("s1")
    assert child.step(want=1).leases[0].payload == payload(5)


@pytest.mark.parametrize("state", ["stopping", "failed", "lost"])
def test_some_ends_are_final(store: Store, state: str) -> None:
    frontier = order(store)
    child = Child(frontier, "w1")
    child.step(want=1)
    crawls = Crawls(store)
    if state == "stopping":
        crawls.stop(frontier.crawl_id)
    elif state == "failed":
        crawls.finish_failed(frontier.crawl_id, "no")
    else:
        crawls.move(frontier.crawl_id, CrawlState.LOST, Mover.SENDER)
    with pytest.raises(StateError, match=f"is {state}: nothing can be put back"):
        Retries(store).put_back(frontier.crawl_id, [failed(5)], OWNER)


def test_killed_crawl_is_swept_first_and_goes_on_without_its_queue(store: Store) -> None:
    frontier = order(store)
    child = Child(frontier, "w1")
    (start,) = child.step(want=1).leases
    child.step(
        ended=(start.lease_id,), requests=requests(range(20)), failures=b"x", failure_count=1
    )
    child.step(want=5)
    crawls = Crawls(store)
    crawls.kill(frontier.crawl_id)
    store.client.zadd(global_key("crawls:live"), {frontier.crawl_id: 1})  # as if it had not ended
    put = Retries(store).put_back(frontier.crawl_id, [failed(5)], OWNER)
    assert (put.before, put.reopened) == (CrawlState.STOPPED, True)
    again = Child(frontier, "w2")
    assert [lease.payload for lease in again.step(want=9).leases] == [payload(5)]


def test_limit_that_ended_it_holds_no_longer(store: Store) -> None:
    frontier = finished(store)
    store.client.hset(crawl_key(frontier.crawl_id, "meta"), "limit_errors", 1)
    store.client.hset(crawl_key(frontier.crawl_id, "meta"), "errors", 1)
    Retries(store).put_back(frontier.crawl_id, [failed(5)], OWNER)
    child = Child(frontier, "w2")
    assert child.step(want=1).state is CrawlState.RUNNING


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"headers": {b"Authorization": [b"***"], b"X": [b"1"]}}, ("Authorization",)),
        ({"headers": {b"X": [b"***"]}}, ()),
        ({"cookies": {"sid": "***"}}, ("cookies",)),
        ({"cookies": [{"name": "sid", "value": "***"}]}, ("cookies",)),
        ({"cookies": {"sid": "1"}}, ()),
    ],
)
def test_what_was_masked_is_left_out(fields: dict[str, object], lost: tuple[str, ...]) -> None:
    sent, names = unmasked(payload(1, **fields))
    assert names == lost
    assert (b"***" in sent) == (not lost and b"***" in payload(1, **fields))
    assert msgspec.msgpack.decode(sent)["url"] == "http://site/1"
