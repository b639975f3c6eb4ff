"""A child that ends itself while nobody knows which lease it ran: each of them runs alone next."""

import pytest

from tests.store.driver import Child, order, requests
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, crawl_key
from vscrapy_magic.store.messages import CrawlState, Lease, LeaseKind, SlotLimit
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.values import PlainCodec


@pytest.fixture
def crawl(store: Store) -> Frontier:
    return order(store)


def started(crawl: Frontier, urls: int) -> None:
    """The crawl has so many requests, and nobody works on it."""
    child = Child(crawl, "starter")
    (start,) = child.step(want=1).leases
    child.step(
        ended=(start.lease_id,), requests=requests(range(urls)), default_limit=SlotLimit("", 16)
    )
    crawl.leave(child.token)


def crash(crawl: Frontier, child: Child, leases: tuple[Lease, ...]) -> list[str]:
    return crawl.reclaim(child.token, suspects=[x.lease_id for x in leases], clear=False)


def test_each_suspect_runs_with_nothing_beside_it(crawl: Frontier) -> None:
    started(crawl, urls=6)
    first = Child(crawl, "first")
    leases = first.step(want=4).leases
    assert len(leases) == 4
    assert crash(crawl, first, leases) == []
    child, ran = Child(crawl, "second"), []
    reply = child.step(want=10)
    for _ in range(4):
        (lease,) = reply.leases
        ran.append(lease.payload)
        assert lease.attempt == 2
        assert child.step(want=10).leases == ()  # it holds one
        reply = child.step(ended=(lease.lease_id,), want=10)
    assert sorted(ran) == sorted(x.payload for x in leases)
    assert len(reply.leases) == 2  # the innocent ones, together


def test_only_the_suspect_that_was_alone_gets_strikes(crawl: Frontier, store: Store) -> None:
    started(crawl, urls=3)
    first = Child(crawl, "first")
    leases = first.step(want=3).leases
    guilty = leases[0].payload
    assert crash(crawl, first, leases) == []
    buried, done = [], []
    for number in range(3):
        child = Child(crawl, f"c{number}")
        while True:
            (lease,) = child.step(want=5).leases
            if lease.payload == guilty:
                buried += crash(crawl, child, (lease,))
                break
            done.append(lease.payload)
            child.step(ended=(lease.lease_id,))
    assert len(done) == 2
    assert buried == [leases[0].origin]
    (output,) = Outputs(store, crawl.crawl_id).read()
    assert (output.buried, output.failure_count) == (guilty, 1)
    assert [x.kind for x in Child(crawl, "last").step(want=5).leases] == [LeaseKind.IDLE]


def test_two_children_take_one_suspect_each(crawl: Frontier) -> None:
    started(crawl, urls=3)
    first = Child(crawl, "first")
    crash(crawl, first, first.step(want=3).leases)
    a, b = Child(crawl, "a"), Child(crawl, "b")
    assert len(a.step(want=3).leases) == len(b.step(want=3).leases) == 1


def test_a_child_that_works_on_others_gets_no_suspect(crawl: Frontier) -> None:
    started(crawl, urls=3)
    a, b = Child(crawl, "a"), Child(crawl, "b")
    (held,) = a.step(want=1).leases
    leases = b.step(want=5).leases + b.step(want=5).leases
    crash(crawl, b, leases)
    assert a.step(want=5).leases == ()
    assert len(a.step(ended=(held.lease_id,), want=5).leases) == 1


def test_a_suspect_that_waits_for_its_own_requests_gets_them(crawl: Frontier, store: Store) -> None:
    started(crawl, urls=2)
    first = Child(crawl, "first")
    crash(crawl, first, first.step(want=2).leases)
    child = Child(crawl, "second")
    (lease,) = child.step(want=5).leases
    assert child.step(want=5, requests=requests([50])).leases == ()
    store.client.hset(crawl_key(crawl.crawl_id, "m:second"), "alone_until", 1)
    (own,) = child.step(want=5).leases
    assert own.payload == b"50"
    # It was a suspect, the other was not: should the child end itself now, it was this one.
    crash(crawl, child, (lease, own))
    for number in range(2, 4):
        child = Child(crawl, f"c{number}")
        (again,) = child.step(want=5).leases
        while again.origin != lease.origin:
            (again,) = child.step(ended=(again.lease_id,), want=5).leases
        buried = crash(crawl, child, (again,))
    assert buried == [lease.origin]


def test_released_suspects_stay_suspects(crawl: Frontier) -> None:
    started(crawl, urls=2)
    first = Child(crawl, "first")
    crash(crawl, first, first.step(want=2).leases)
    child = Child(crawl, "second")
    (lease,) = child.step(want=5).leases
    child.step(released=(lease.lease_id,))
    crawl.leave(child.token)
    assert len(Child(crawl, "third").step(want=5).leases) == 1


def test_suspects_of_an_owned_slot_wait_for_it(crawl: Frontier) -> None:
    child = Child(crawl, "starter")
    (start,) = child.step(want=1).leases
    limit = SlotLimit("site", 1, exclusive=True)
    child.step(ended=(start.lease_id,), requests=requests(range(4)), limits=(limit,))
    leases = child.step(want=2).leases
    crash(crawl, child, leases)
    a, b = Child(crawl, "a"), Child(crawl, "b")
    (lease,) = a.step(want=2).leases
    assert b.step(want=2).leases == ()
    crawl.reclaim(a.token)
    assert b.frontier.wait(b.token, 5)
    (other,) = b.step(want=2).leases  # suspects take turns
    assert (other.attempt, other.origin != lease.origin) == (2, True)


def test_the_failure_that_a_death_is_is_kept_once(crawl: Frontier, store: Store) -> None:
    started(crawl, urls=1)
    child = Child(crawl, "c")
    (lease,) = child.step(want=1).leases
    assert crawl.held(child.token, lease.lease_id) == (lease.payload, 1)
    for _ in range(2):
        crawl.reclaim(child.token, suspects=[lease.lease_id], failure=b"packet")
    (output,) = Outputs(store, crawl.crawl_id).read()
    assert (output.failures, output.failure_count, output.total_bytes) == (b"packet", 1, 6)
    assert Crawls(store).view(crawl.crawl_id).totals.failures == 1
    assert crawl.held(child.token, lease.lease_id) == (b"", 1)
    (again,) = Child(crawl, "d").step(want=1).leases
    assert crawl.held(MemberToken("d"), again.lease_id) == (lease.payload, 2)
    crawl.reclaim(MemberToken("never-seen"), failure=b"packet")
    assert len(Outputs(store, crawl.crawl_id).read()) == 1


@pytest.mark.parametrize(("kind", "name"), [("start", "start()"), ("idle", "spider_idle")])
def test_start_and_idle_are_buried_as_requests_are(
    crawl: Frontier, store: Store, kind: str, name: str
) -> None:
    if kind == "idle":
        started(crawl, urls=0)
    for number in range(3):
        child = Child(crawl, f"c{number}")
        (lease,) = child.step(want=1).leases
        assert lease.kind == kind
        buried = crawl.reclaim(child.token, suspects=[lease.lease_id], clear=number != 1)
    assert buried == [kind]
    (output,) = Outputs(store, crawl.crawl_id).read()
    assert output.buried is not None
    assert PlainCodec().decode(output.buried) == {"url": name}
    assert Crawls(store).view(crawl.crawl_id).totals.failures == 1
    if kind == "start":
        assert [x.kind for x in Child(crawl, "last").step(want=1).leases] == [LeaseKind.IDLE]
    else:
        assert Crawls(store).view(crawl.crawl_id).state is CrawlState.FINISHED


def test_start_beside_others_gets_no_strike_and_comes_after_suspects(crawl: Frontier) -> None:
    for number in range(4):
        child = Child(crawl, f"c{number}")
        leases = list(child.step(want=1).leases)
        while leases[0].kind is LeaseKind.REQUEST:  # the suspects of the last death, one by one
            leases = list(child.step(ended=(leases[0].lease_id,), want=1).leases)
        assert leases[0].kind is LeaseKind.START
        child.step(requests=requests([100 + number, 200 + number]))
        leases += child.step(want=5).leases
        assert len(leases) == 3
        assert crash(crawl, child, tuple(leases)) == []


def test_a_child_with_nothing_but_start_may_have_a_suspect(crawl: Frontier) -> None:
    a = Child(crawl, "a")
    (start,) = a.step(want=1).leases
    a.step(requests=requests(range(2)), default_limit=SlotLimit("", 16))
    b = Child(crawl, "b")
    crash(crawl, b, b.step(want=1).leases + b.step(want=1).leases)
    (suspect,) = a.step(want=5).leases
    # Nobody is blamed while start() is beside it; it runs truly alone then.
    assert crash(crawl, a, (start, suspect)) == []
    c = Child(crawl, "c")
    assert [x.kind for x in c.step(want=5).leases] == [LeaseKind.REQUEST]
