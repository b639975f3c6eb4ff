"""Many workers: what one of them does costs no more and wakes no more because there are others."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.store.driver import Child, order, requests
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import CLAIM_TTL_MS, Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key, global_key
from vscrapy_magic.store.messages import CrawlState, SlotLimit, WorkerRecord
from vscrapy_magic.store.placement import SHOWN_TO
from vscrapy_magic.store.presence import Presence

FEW, MANY = 3, 60
TRIALS = 5
LONGEST_MS = 20.0


def crew(frontier: Frontier, count: int) -> list[Child]:
    """Members of which the first runs `start()`, and the others are parked."""
    children = [Child(frontier, f"w{number}") for number in range(count)]
    assert children[0].step(want=1).leases
    for child in children[1:]:
        child.step(want=4)
    wakes(frontier)
    return children


def wakes(frontier: Frontier) -> set[str]:
    """Members that were woken since this was asked last."""
    client, head = frontier.store.client, crawl_key(frontier.crawl_id, "wake:")
    keys = client.keys(f"{head}*")
    if keys:
        client.delete(*keys)
    return {key.decode().removeprefix(head) for key in keys}


def stand_by(frontier: Frontier, count: int) -> set[str]:
    """Names of workers that asked for a child and were told that there is no need."""
    names = {f"s{number}" for number in range(count)}
    for name in sorted(names):
        assert not frontier.reserve(MemberToken(f"{name}.1"), WorkerName(name))
    return names


def called(store: Store) -> set[str]:
    """Workers that were woken since this was asked last."""
    head = global_key("wake:")
    keys = store.client.keys(f"{head}*")
    if keys:
        store.client.delete(*keys)
    return {key.decode().removeprefix(head) for key in keys}


def commands(store: Store) -> int:
    """Commands that the server has run, those inside of scripts as well; this one not."""
    stats = store.client.info("commandstats")
    return sum(row["calls"] for name, row in stats.items() if name != "cmdstat_info")


def beat(frontier: Frontier, children: list[Child]) -> None:
    assert children
    record = WorkerRecord(name=WorkerName("idle"), host="h", pid=1, slots=8)
    (crawl,) = Presence(frontier.store).beat_worker(record).crawls
    assert crawl.members == len(children)


def renew(frontier: Frontier, children: list[Child]) -> None:
    frontier.renew([children[0].token])


def reserve(frontier: Frontier, _: list[Child]) -> None:
    assert not frontier.reserve(MemberToken("x.1"), WorkerName("x"))


def hungry_step(_: Frontier, children: list[Child]) -> None:
    assert not children[-1].step(want=4).leases


def brings_one(_: Frontier, children: list[Child]) -> None:
    assert not children[0].step(requests=requests([1])).dropped


@pytest.mark.parametrize("do", [beat, renew, reserve, hungry_step, brings_one])
def test_what_a_worker_asks_costs_the_same_with_few_and_with_many_members(
    store: Store, do: Callable[[Frontier, list[Child]], None]
) -> None:
    spent = []
    for count in (FEW, FEW, MANY):  # the first brings the scripts to the server
        store.client.flushall()
        frontier = order(store)
        children = crew(frontier, count)
        before = commands(store)
        do(frontier, children)
        spent.append(commands(store) - before)
    _, few, many = spent
    assert many == few > 0


def test_a_commit_wakes_no_more_members_than_it_brought_requests(store: Store) -> None:
    frontier = order(store)
    first, *_ = crew(frontier, 20)
    first.step(requests=requests(range(3), slot="site"))
    assert len(wakes(frontier)) == 3


def test_a_commit_wakes_no_more_members_than_the_site_has_places(store: Store) -> None:
    frontier = order(store)
    first, *others = crew(frontier, 20)
    limits = (SlotLimit("site", 2, exclusive=False),)
    first.step(requests=requests(range(10)), limits=limits)
    woken = wakes(frontier)
    assert len(woken) == 2
    by_name = {child.token: child for child in others}
    for name in woken:
        assert by_name[MemberToken(name)].step(want=1).leases
    first.step(requests=requests(range(10, 20)), limits=limits)
    assert wakes(frontier) == set()


def test_a_member_that_has_a_place_is_woken_before_those_that_wait_longer(store: Store) -> None:
    frontier = order(store)
    first, second, *others = crew(frontier, 10)
    limits = (SlotLimit("site", 1, exclusive=False),)
    first.step(requests=requests([1]), limits=limits)
    wakes(frontier)
    (lease,) = second.step(want=1).leases
    for child in others:
        child.step(want=1)
    second.step(want=1, ended=(lease.lease_id,))  # it keeps its place, and waits last of all
    wakes(frontier)
    first.step(requests=requests([2]), limits=limits)
    assert wakes(frontier) == {"w1"}
    assert second.step(want=1).leases


def test_the_owner_of_a_site_is_woken_and_nobody_else(store: Store) -> None:
    frontier = order(store)
    first, second, *others = crew(frontier, 10)
    limits = (SlotLimit("site", 1, exclusive=True),)
    first.step(requests=requests([1]), limits=limits)
    (lease,) = second.step(want=1).leases
    for child in others:
        child.step(want=1)
    second.step(want=1, ended=(lease.lease_id,))
    wakes(frontier)
    first.step(requests=requests([2]), limits=limits)
    assert wakes(frontier) == {"w1"}


def test_members_that_cannot_take_what_another_holds_do_not_make_it_give_back(
    store: Store,
) -> None:
    frontier = order(store)
    first, second, *others = crew(frontier, 10)
    limits = (SlotLimit("site", 1, exclusive=False),)
    first.step(requests=requests(range(60)), limits=limits)
    assert len(second.step(want=4).leases) == 2
    for child in others:
        child.step(want=1)
    wakes(frontier)
    assert second.step(unstarted=1).hungry == 0
    others[0].step(want=1)
    assert wakes(frontier) == set()


def test_a_crawl_that_waits_wakes_nobody_to_hear_of_it(store: Store) -> None:
    frontier = order(store, keep_open=True)
    first = crew(frontier, 10)[0]
    first.step(want=1, ended=(1,))
    assert Crawls(store).view(frontier.crawl_id).state is CrawlState.WAITING
    assert wakes(frontier) == set()


def test_workers_that_stand_by_are_called_once_for_each_place(store: Store) -> None:
    frontier = order(store)
    first = Child(frontier, "w0")
    (start,) = first.step(want=1).leases
    stand_by(frontier, 12)
    called(store)
    first.step(requests=requests(range(100)))
    assert len(called(store)) == 1  # one member: one more may join
    first.step(requests=requests(range(100, 200)))
    assert called(store) == set()  # it is on its way
    assert frontier.reserve(MemberToken("s0.1"), WorkerName("s0"))
    first.step(requests=requests(range(200, 300)))
    assert called(store) == set()  # it is being started
    Child(frontier, "s0.1")
    first.step(requests=requests(range(300, 400)), ended=(start.lease_id,))
    assert len(called(store)) == 2


def test_a_worker_that_was_called_and_does_not_come_makes_way(store: Store) -> None:
    frontier = order(store)
    first = Child(frontier, "w0")
    first.step(want=1)
    stand_by(frontier, 2)
    first.step(requests=requests(range(100)))
    (name,) = called(store)
    assert store.client.zrem(crawl_key(frontier.crawl_id, "claims"), f"={name}")  # a second later
    first.step(requests=requests(range(100, 200)))
    assert called(store) == {"s0", "s1"} - {name}


def test_a_crawl_whose_first_worker_died_on_its_way_is_soon_offered_to_others(store: Store) -> None:
    frontier = order(store)
    assert frontier.reserve(MemberToken("a.1"), WorkerName("a"))
    assert not frontier.reserve(MemberToken("b.1"), WorkerName("b"))
    claims = crawl_key(frontier.crawl_id, "claims")
    store.client.zincrby(claims, -CLAIM_TTL_MS / 2, "a.1")  # five seconds later
    assert frontier.reserve(MemberToken("b.1"), WorkerName("b"))
    Child(frontier, "b.1")
    assert not frontier.reserve(MemberToken("c.1"), WorkerName("c"))  # one is enough for now


def test_ten_pages_bring_no_more_than_three_children(store: Store) -> None:
    frontier = order(store)
    first = Child(frontier, "w0")
    (start,) = first.step(want=1).leases
    stand_by(frontier, 200)
    called(store)
    joined = 1
    first.step(requests=requests(range(10)), ended=(start.lease_id,))
    while names := called(store):
        for name in sorted(names):
            if frontier.reserve(MemberToken(f"{name}.1"), WorkerName(name)):
                joined += 1
                Child(frontier, f"{name}.1")
        first.step()
        first.step(requests=requests([100 + joined]))
    assert 2 <= joined <= 4


def beats(store: Store, count: int) -> None:
    records = [
        WorkerRecord(name=WorkerName(f"b{number}"), host="h", pid=1, slots=8)
        for number in range(count)
    ]
    Presence(store).beat_worker(*records)


def test_a_new_crawl_is_shown_to_some_workers_and_to_all_when_it_wants_more(store: Store) -> None:
    beats(store, 100)
    frontier = order(store)
    assert len(called(store)) == SHOWN_TO
    first = Child(frontier, "w0")
    (start, *_) = first.step(want=1, requests=requests(range(4))).leases
    assert called(store) == set()  # the child that it has can do that
    first.step(requests=requests(range(10, 30)), ended=(start.lease_id,))
    assert len(called(store)) == 100
    first.step(requests=requests(range(30, 60)))
    assert called(store) == set()


def test_a_stop_wakes_those_whose_children_take_part_and_no_others(store: Store) -> None:
    beats(store, 100)
    frontier = order(store)
    Child(frontier, "b7").step(want=1, requests=requests(range(100)))
    assert frontier.reserve(MemberToken("b9.c0ffee"), WorkerName("b9"))
    called(store)
    Crawls(store).stop(frontier.crawl_id)
    assert called(store) == {"b7", "b9"}


def test_a_beat_says_what_a_worker_must_know_of_each_crawl(
    store: Store, worker_record: WorkerRecord
) -> None:
    presence, queued, running = Presence(store), order(store), order(store)
    child = Child(running, "w")
    child.step(want=1, requests=requests(range(100)))
    first, second = presence.beat_worker(worker_record).crawls
    assert (first.crawl_id, first.state, first.members) == (queued.crawl_id, CrawlState.QUEUED, 0)
    assert (first.wanted, first.at_risk) == (1, False)
    assert (second.state, second.members, second.wanted) == (CrawlState.RUNNING, 1, 1)
    assert (second.at_risk, second.judged_ms < 60_000) == (False, True)
    assert running.reserve(MemberToken("x.1"), WorkerName("x"))
    child.expire()
    Crawls(store).kill(queued.crawl_id)
    (second,) = presence.beat_worker(worker_record).crawls
    assert (second.wanted, second.at_risk) == (0, True)


def test_what_concerns_all_of_two_hundred_members_is_one_short_command(store: Store) -> None:
    took_ms: dict[str, list[float]] = {}
    for _ in range(TRIALS):  # of each the shortest: others waited for a processor
        store.client.flushall()
        beats(store, 200)
        frontier = order(store)
        for number in range(200):
            frontier.join(MemberToken(f"b{number}.1"), WorkerName(f"b{number}"))
        crawl_id, crawls = frontier.crawl_id, Crawls(store)
        store.client.hset(crawl_key(crawl_id, "meta"), "judged_ms", 1)
        work: dict[str, Callable[[], object]] = {
            "stood still": frontier.renew,
            "settings": partial(Control(store).set, crawl_id, {"workers": 150}),
            "stop": partial(crawls.stop, crawl_id),
            "kill": partial(crawls.kill, crawl_id),
        }
        for name, call in work.items():
            store.client.config_set("slowlog-log-slower-than", 0)
            store.client.slowlog_reset()
            call()
            longest = max(entry["duration"] for entry in store.client.slowlog_get(128))
            store.client.config_set("slowlog-log-slower-than", 10_000)
            took_ms.setdefault(name, []).append(longest / 1000)
    shortest = {name: min(each) for name, each in took_ms.items()}
    assert max(shortest.values()) < LONGEST_MS, shortest
