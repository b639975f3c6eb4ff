"""The frontier's promises one by one, on a real server."""

import struct

import pytest

from vscrapy_magic.errors import LeaseLostError, MemberGoneError, StateError, StoreRolledBackError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key
from vscrapy_magic.store.messages import (
    CloseLimits,
    CookieChange,
    CrawlState,
    LeaseKind,
    Part,
    SlotLimit,
    SlotUse,
    StatDelta,
    StatKind,
)
from vscrapy_magic.store.outputs import Outputs

from .driver import Child, order, requests


@pytest.fixture
def crawl(store: Store) -> Frontier:
    return order(store)


def started(frontier: Frontier, *names: str, urls: int = 0) -> list[Child]:
    """Children that have joined; the first ran `start()`, which brought so many requests."""
    children = [Child(frontier, name) for name in names]
    (start,) = children[0].step(want=1).leases
    assert start.kind is LeaseKind.START
    children[0].step(ended=(start.lease_id,), requests=requests(range(urls)))
    return children


def test_start_is_leased_once(crawl: Frontier) -> None:
    a, b = Child(crawl, "a"), Child(crawl, "b")
    assert [lease.kind for lease in a.step(want=5).leases] == [LeaseKind.START]
    assert b.step(want=5).leases == ()


def test_two_workers_share_the_requests(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b", urls=10)
    mine, other = a.step(want=8).leases, b.step(want=8).leases
    payloads = [lease.payload for lease in (*mine, *other)]
    assert len(mine) == 5  # no more than its part of few
    assert len(set(payloads)) == len(payloads)


def test_newest_first_unless_fifo(store: Store) -> None:
    for lifo, expected in ((True, [b"2", b"1", b"0"]), (False, [b"0", b"1", b"2"])):
        frontier = order(store, lifo=lifo)
        (child,) = started(frontier, "a")
        child.step(requests=requests([0]))
        child.step(requests=requests([1, 2]))
        child.step(requests=requests([9], priority=-1))
        assert [lease.payload for lease in child.step(want=3).leases] == expected


def test_priority_goes_first_and_start_requests_last_of_theirs(crawl: Frontier) -> None:
    (child,) = started(crawl, "a")
    child.step(
        requests=(
            *requests([1], start=True),
            *requests([2]),
            *requests([3], priority=1),
            *requests([4], start=True),
        )
    )
    got = [lease.payload for lease in child.step(want=4).leases]
    assert got == [b"3", b"2", b"1", b"4"]


def test_seen_requests_are_dropped_and_counted(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=3)
    reply = b.step(requests=(*requests([7, 1, 8, 8]), *requests([1], filtered=False)))
    assert reply.dropped == (1, 3)
    assert reply.totals.queued == 3 + 3
    assert Crawls(store).stats(crawl.crawl_id)["dupefilter/filtered"] == b"2"
    assert a.step().dropped == ()


def test_a_step_sent_again_is_answered_again_and_applied_once(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b", urls=4)
    first = a.step(want=2, requests=requests([1, 20]), item_count=1, items=b"x")
    second = a.again()
    assert second.leases == first.leases
    assert second.dropped == first.dropped == (0,)
    assert second.totals == first.totals
    assert [lease.payload for lease in b.step(want=9).leases] not in [
        [lease.payload] for lease in first.leases
    ]


def test_commit_after_expiry_changes_nothing(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=1)
    (lease,) = a.step(want=1).leases
    a.expire()
    assert crawl.renew(["b"]).gone == ("a",)
    (again,) = b.step(want=1).leases
    assert (again.payload, again.attempt) == (lease.payload, 2)
    with pytest.raises(MemberGoneError):
        a.step(ended=(lease.lease_id,), item_count=1, items=b"late")
    b.step(ended=(again.lease_id,), item_count=1, items=b"in time")
    assert [output.items for output in Outputs(store, crawl.crawl_id).read()] == [b"in time"]


def test_a_lost_lease_refuses_the_whole_step(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b", urls=4)
    (mine,) = a.step(want=1).leases
    (other,) = b.step(want=1).leases
    with pytest.raises(LeaseLostError) as lost:
        a.step(ended=(mine.lease_id, other.lease_id), requests=requests([50]))
    assert lost.value.lease_ids == {other.lease_id}
    a.seq -= 1
    reply = a.step(ended=(mine.lease_id,), requests=requests([50]))
    assert (reply.totals.queued, reply.totals.leased, reply.dropped) == (3, 1, ())


def test_released_leases_are_first_runs_for_others(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b", urls=2)
    leases = a.step(want=2).leases + a.step(want=2).leases
    a.step(released=tuple(lease.lease_id for lease in leases))
    got = b.step(want=1).leases + b.step(want=1).leases
    assert sorted((lease.payload, lease.attempt) for lease in got) == [(b"0", 1), (b"1", 1)]


def test_parts_are_remembered_until_the_lease_ends(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=1)
    (lease,) = a.step(want=1).leases
    keys = struct.pack(">2q", 1, -2), struct.pack(">q", 3)
    for part in keys:
        a.step(parts=(Part(lease.lease_id, part),), requests=requests([5], filtered=False))
    a.expire()
    crawl.renew(["b"])
    again = next(x for x in b.step(want=9).leases + b.step(want=9).leases if x.has_parts)
    assert again.origin == lease.origin
    assert crawl.published(again.origin) == b"".join(keys)
    b.step(ended=(again.lease_id,))
    assert crawl.published(again.origin) == b""


def test_counting_ends_the_crawl(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=1)
    (lease,) = a.step(want=1).leases
    reply = a.step(ended=(lease.lease_id,), want=1)
    (idle,) = reply.leases
    assert (idle.kind, reply.state) == (LeaseKind.IDLE, CrawlState.RUNNING)
    assert b.step(want=1).leases == ()
    reply = a.step(ended=(idle.lease_id,), want=1)
    assert (reply.state, reply.close_reason) == (CrawlState.CLOSING, "finished")
    assert crawl.wait(b.token, 1)
    assert crawl.leave(a.token) is CrawlState.CLOSING
    assert crawl.leave(b.token) is CrawlState.FINISHED
    assert crawl.leave(b.token) is CrawlState.FINISHED


def test_requests_of_the_idle_lease_go_on(crawl: Frontier) -> None:
    (a,) = started(crawl, "a")
    (idle,) = a.step(want=1).leases
    reply = a.step(ended=(idle.lease_id,), requests=requests([3]), want=1)
    assert [lease.payload for lease in reply.leases] == [b"3"]
    reply = a.step(ended=(reply.leases[0].lease_id,), want=1)
    assert [lease.kind for lease in reply.leases] == [LeaseKind.IDLE]


def test_dont_close_spider_asks_again(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a")
    (idle,) = a.step(want=1).leases
    reply = a.step(ended=(idle.lease_id,), keep_open=True, want=1)
    assert (reply.leases, reply.state) == ((), CrawlState.RUNNING)
    while crawl.wait(a.token, 0):
        pass
    assert a.step(want=1).leases == ()
    assert not crawl.wait(a.token, 0)  # it does not wake itself: waiting costs nothing
    store.client.hset(crawl_key(crawl.crawl_id, "meta"), "idle_after_ms", 0)
    assert [lease.kind for lease in a.step(want=1).leases] == [LeaseKind.IDLE]


def test_limits_close_the_whole_crawl(store: Store) -> None:
    crawl = order(store, limits=CloseLimits(items=3))
    a, b = started(crawl, "a", "b", urls=9)
    (lease,) = a.step(want=1).leases
    (other,) = b.step(want=1).leases
    assert a.step(ended=(lease.lease_id,), item_count=2, items=b"2").state is CrawlState.RUNNING
    reply = b.step(ended=(other.lease_id,), item_count=2, items=b"2", want=5)
    assert (reply.state, reply.close_reason) == (CrawlState.CLOSING, "closespider_itemcount")
    assert reply.leases == ()


def test_pages_without_an_item_are_counted_over_all_children(store: Store) -> None:
    crawl = order(store, limits=CloseLimits(no_item_pages=5))
    a, b = started(crawl, "a", "b", urls=9)
    assert a.step(pages=4).state is CrawlState.RUNNING
    assert b.step(pages=1, item_count=1, items=b"1").state is CrawlState.RUNNING
    assert a.step(pages=4).state is CrawlState.RUNNING
    reply = b.step(pages=1)
    assert reply.close_reason == "closespider_pagecount_no_item"


def test_a_child_without_items_ends_no_crawl_whose_others_have_some(store: Store) -> None:
    crawl = order(store, limits=CloseLimits(no_item_ms=60_000))
    a, b = started(crawl, "a", "b", urls=9)
    meta = crawl_key(crawl.crawl_id, "meta")

    def period_passes() -> None:
        store.client.hincrby(meta, "period_ms", -60_000)

    a.step(item_count=1, items=b"1")
    period_passes()
    assert b.step().state is CrawlState.RUNNING
    assert b.step().state is CrawlState.RUNNING
    period_passes()
    assert b.step().close_reason == "closespider_timeout_no_item"


def test_stop_finishes_what_is_leased(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a", urls=5)
    (lease, *rest) = a.step(want=3).leases
    assert Crawls(store).stop(crawl.crawl_id) is CrawlState.STOPPING
    reply = a.step(released=tuple(x.lease_id for x in rest), want=3)
    assert (reply.state, reply.leases) == (CrawlState.STOPPING, ())
    reply = a.step(ended=(lease.lease_id,), item_count=1, items=b"kept")
    assert (reply.state, reply.close_reason) == (CrawlState.CLOSING, "shutdown")
    assert crawl.leave(a.token) is CrawlState.STOPPED


def test_kill_refuses_what_comes_later(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a", urls=5)
    (lease,) = a.step(want=1).leases
    assert Crawls(store).kill(crawl.crawl_id) is CrawlState.STOPPED
    with pytest.raises(StateError, match="stopped"):
        a.step(ended=(lease.lease_id,))
    crawl.reclaim(a.token)


def test_three_strikes_bury_a_request(crawl: Frontier, store: Store) -> None:
    a = started(crawl, "a", urls=1)[0]
    for number in range(3):
        child = Child(crawl, f"c{number}")
        (lease,) = child.step(want=1).leases
        buried = crawl.reclaim(child.token, suspects=[lease.lease_id])
        assert buried == ([lease.origin] if number == 2 else [])
    (output,) = Outputs(store, crawl.crawl_id).read()
    assert (output.buried, output.failure_count) == (b"0", 1)
    assert [lease.kind for lease in a.step(want=1).leases] == [LeaseKind.IDLE]


def test_outside_deaths_are_no_strikes(crawl: Frontier) -> None:
    a = started(crawl, "a", urls=1)[0]
    for number in range(4):
        child = Child(crawl, f"c{number}")
        (lease,) = child.step(want=1).leases
        assert crawl.reclaim(child.token) == []
    assert [lease.attempt for lease in a.step(want=1).leases] == [5]


def test_nobody_dies_of_a_frozen_server(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=2)
    a.expire()
    b.expire()
    store.client.hset(crawl_key(crawl.crawl_id, "meta"), "judged_ms", 1)
    assert crawl.renew([]).gone == ()
    a.step(want=1)


def test_a_server_that_forgot_is_found_out(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b", urls=2)
    store.client.hset(crawl_key(crawl.crawl_id, "m:a"), "seq", 0)
    with pytest.raises(StoreRolledBackError):
        a.step(want=1)
    with pytest.raises(StateError, match="store_rolled_back"):
        b.step(want=1)


def test_a_sender_finds_out_that_the_server_forgot(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a")
    outputs = Outputs(store, crawl.crawl_id)
    a.step(item_count=1, items=b"1")
    a.step(item_count=1, items=b"2")
    first, second = outputs.read()
    outputs.ack(first)
    outputs.ack(first)
    assert outputs.read(first.witness) == [second]
    outputs.ack(second)
    assert outputs.read(second.witness) == []
    store.client.delete(crawl_key(crawl.crawl_id, "out"))
    with pytest.raises(StoreRolledBackError):
        outputs.read(second.witness)
    with pytest.raises(StoreRolledBackError):
        outputs.ack(second)


def test_items_that_nobody_collects_pause_the_crawl(store: Store) -> None:
    crawl = order(store, out_bytes_max=100)
    (a,) = started(crawl, "a", urls=5)
    (lease,) = a.step(want=1).leases
    reply = a.step(ended=(lease.lease_id,), item_count=1, items=b"x" * 101, want=1)
    assert (reply.state, reply.leases) == (CrawlState.WAITING, ())
    assert "not collected" in Crawls(store).view(crawl.crawl_id).why
    while crawl.wait(a.token, 0):
        pass
    (output,) = Outputs(store, crawl.crawl_id).read()
    Outputs(store, crawl.crawl_id).ack(output)
    assert crawl.wait(a.token, 1)
    reply = a.step(want=1)
    assert (reply.state, len(reply.leases)) == (CrawlState.RUNNING, 1)


def test_an_exclusive_slot_has_one_owner_at_a_time(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b")
    limits = (SlotLimit("slow", 1, exclusive=True),)
    a.step(requests=requests(range(9), slot="slow"), limits=limits)
    reply = a.step(want=5)
    assert len(reply.leases) == 2
    assert [(s.slot, s.concurrency, s.idle_ms) for s in reply.shares] == [("slow", 1, -1)]
    assert b.step(want=5).leases == ()
    use = (SlotUse("slow", 1, 0),)
    a.step(ended=tuple(x.lease_id for x in reply.leases), slots=use)
    assert b.step(want=5).leases == ()
    a.step(slots=())  # given up
    reply = b.step(want=5)
    assert len(reply.leases) == 2
    assert reply.shares[0].idle_ms >= 0
    assert a.step(want=5).leases == ()


def test_a_slot_of_a_dead_owner_goes_to_who_waits(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b")
    limits = (SlotLimit("slow", 1, exclusive=True),)
    a.step(requests=requests(range(9), slot="slow"), limits=limits)
    leases = a.step(want=1).leases
    a.step(ended=tuple(x.lease_id for x in leases), slots=(SlotUse("slow", 1, 0),))
    assert b.step(want=5).leases == ()
    while crawl.wait(b.token, 0):
        pass
    crawl.reclaim(a.token)  # it held the slot, and no lease
    assert crawl.wait(b.token, 1)
    assert len(b.step(want=5).leases) == 2


def test_many_leases_of_dead_children_go_back_piece_by_piece(crawl: Frontier) -> None:
    children = started(crawl, "a", "b", "c", "d")
    for at in range(0, 4000, 1000):
        children[0].step(requests=requests(range(at, at + 1000)), limits=(SlotLimit("site", 4000),))
    dead = children[1:]
    for child in dead:
        assert len(child.step(want=600).leases) == 600
        child.expire()
    gone = [crawl.renew(["a"]).gone for _ in range(3)]
    assert [len(tokens) for tokens in gone] == [1, 1, 1]
    assert children[0].step().totals.leased == 0


def test_shares_of_a_slot_never_exceed_its_limit(crawl: Frontier) -> None:
    a, b, c = children = started(crawl, "a", "b", "c")
    limits = (SlotLimit("site", 8),)
    a.step(requests=requests(range(300), slot="site"), limits=limits)
    in_force: dict[str, int] = {}
    for _ in range(6):
        for child in children:
            share = in_force.get(child.token, 0)
            uses = (SlotUse("site", share, 2),) if share else ()
            reply = child.step(want=4, slots=uses)
            for granted in reply.shares:
                in_force[child.token] = granted.concurrency
            assert sum(in_force.values()) <= 8 + 8  # one that shrinks tells so with its next step
    assert sum(in_force.values()) == 8
    assert min(in_force.values()) >= 2


def test_a_full_child_is_told_to_shrink_when_another_joins(crawl: Frontier) -> None:
    (a,) = started(crawl, "a")
    a.step(requests=requests(range(40)), limits=(SlotLimit("site", 8),))
    assert [share.concurrency for share in a.step(want=8).shares] == [8]
    b = Child(crawl, "b")
    assert crawl.wait(a.token, 1)
    reply = a.step()
    assert [share.concurrency for share in reply.shares] == [4]
    assert b.step(want=1).leases == ()
    a.step(slots=(SlotUse("site", 6, 0),))  # two downloads have ended
    assert crawl.wait(b.token, 1)
    assert [share.concurrency for share in b.step(want=1).shares] == [2]


def test_a_waiting_worker_gets_what_another_cannot_start(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b", urls=2)
    first = a.step(want=1).leases + a.step(want=1, unstarted=1).leases
    assert b.step(want=1).leases == ()  # b waits now, and a is asked to give back
    assert crawl.wait(a.token, 1)
    reply = a.step(released=(first[1].lease_id,))
    assert reply.hungry == 0
    assert crawl.wait(b.token, 1)
    assert len(b.step(want=1).leases) == 1


def test_stats_of_many_children_become_one(crawl: Frontier, store: Store) -> None:
    a, b = started(crawl, "a", "b")
    for child, low, high in ((a, b"2", b"9"), (b, b"1", b"7")):
        child.step(
            stats=(
                StatDelta(StatKind.ADD, "n", b"2"),
                StatDelta(StatKind.ADD, "f", b"0.5"),
                StatDelta(StatKind.MIN, "low", low),
                StatDelta(StatKind.MAX, "high", high),
                StatDelta(StatKind.SET, "who", child.token.encode()),
            )
        )
    a.step(stats=(StatDelta(StatKind.ADD, "who", b"5"),))
    stats = a.step(want_stats=True).stats
    assert stats == {b"n".decode(): b"4", "f": b"1.0", "low": b"1", "high": b"9", "who": b"5"}


def test_cookies_reach_the_others_before_later_requests(crawl: Frontier) -> None:
    a, b = started(crawl, "a", "b")
    a.step(cookies=(CookieChange("jar/site/token", b"1"),), requests=requests([1]))
    a.step(cookies=(CookieChange("jar/site/token", b"2"),))
    reply = b.step(want=1)
    assert reply.cookies == (CookieChange("jar/site/token", b"2"),)
    assert len(reply.leases) == 1
    assert b.step(cookies_seen=reply.cookie_no).cookies == ()


def test_no_worker_left_waits_and_goes_on(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a", urls=3)
    a.step(want=2)
    crawl.reclaim(a.token)
    view = Crawls(store).view(crawl.crawl_id)
    assert (view.state, view.why) == (CrawlState.WAITING, "no worker takes part")
    b = Child(crawl, "b")
    assert b.step(want=1).state is CrawlState.RUNNING
    assert b.step(want=9).totals.leased == 3


def test_workers_are_limited(store: Store) -> None:
    crawl = order(store, workers=1)
    Child(crawl, "a")
    with pytest.raises(StateError, match="as many workers"):
        Child(crawl, "b")


def test_more_than_one_level_of_seen_shards(crawl: Frontier, store: Store) -> None:
    (a,) = started(crawl, "a")
    per_step, steps = 1000, 104
    spread = 0x9E3779B97F4A7C15
    values = [(n * spread) % 2**64 - 2**63 for n in range(per_step * steps)]
    for at in range(0, len(values), per_step):
        assert a.step(requests=requests(values[at : at + per_step])).dropped == ()
    assert int(store.client.hget(crawl_key(crawl.crawl_id, "meta"), "level") or 0) == 1
    again = requests([*values[:10], *values[-10:], 3])
    assert a.step(requests=again).dropped == tuple(range(20))
    Crawls(store).kill(crawl.crawl_id)
    left = {key.decode().rpartition(":")[2] for key in store.client.keys()}
    assert left - {"stats"} == {"crawls", "due", "meta", "log"}
    assert store.client.pttl(crawl_key(crawl.crawl_id, "meta")) > 0


def test_gone_sessions_and_unknown_crawls_are_told(store: Store) -> None:
    frontier = Frontier(store, "deadbeef")
    with pytest.raises(Exception, match="vscrapy -l"):
        frontier.renew([])


def test_children_double_while_there_is_more_ready_work(crawl: Frontier, store: Store) -> None:
    worker = WorkerName("w9")
    assert crawl.reserve(MemberToken("a"), worker)
    assert not crawl.reserve(MemberToken("b"), worker)  # one is on its way
    (a,) = started(crawl, "a", urls=3)
    assert not crawl.reserve(MemberToken("b"), worker)  # too little to do for two
    a.step(requests=requests(range(100, 200)))
    assert store.pop_wake("vscrapy:wake:w9", timeout_s=1)
    assert crawl.reserve(MemberToken("b"), worker)
    assert not crawl.reserve(MemberToken("c"), worker)  # no more than twice as many
    Child(crawl, "b")
    assert crawl.reserve(MemberToken("c"), worker)


def test_the_place_of_a_child_that_nobody_starts_any_more_goes_to_another(
    crawl: Frontier, store: Store
) -> None:
    first, second, worker = MemberToken("a"), MemberToken("b"), WorkerName("w9")
    key = crawl_key(crawl.crawl_id, "claims")
    assert crawl.reserve(first, worker, ttl_ms=60_000)
    store.client.zadd(key, {first: 1})
    crawl.renew([first], claims=[first])  # its supervisor still looks after it
    assert not crawl.reserve(second, worker)
    crawl.renew([second], claims=[second])  # never reserved: nothing to keep
    store.client.zadd(key, {first: 1})
    crawl.renew([first])
    assert crawl.reserve(second, worker)
