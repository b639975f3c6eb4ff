"""Changing a running crawl: what may change, what follows at once, and what is refused whole."""

import time

import msgspec
import pytest

from tests.store.driver import Child, order, requests
from tests.waiting import wait_until
from vscrapy_magic.errors import ConfigError, CrawlNotFoundError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control, parse_settings
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName, crawl_key
from vscrapy_magic.store.messages import CrawlState, LeaseKind, SlotLimit, SlotUse, WorkerRecord
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.pushed import pushed

FREE = SlotLimit("", 8, words="CONCURRENT_REQUESTS_PER_DOMAIN = 8")
SLOW = SlotLimit("", 8, exclusive=True, words="DOWNLOAD_DELAY = 1")


@pytest.fixture
def crawl(store: Store) -> Frontier:
    return order(store)


def begun(frontier: Frontier, *names: str) -> list[Child]:
    """Children whose `start()` is done, and whose settings are known."""
    children = [Child(frontier, name) for name in names]
    (start,) = children[0].step(want=1, default_limit=FREE).leases
    children[0].step(ended=(start.lease_id,))
    for child in children[1:]:
        child.step(default_limit=FREE)
    return children


# What may change.


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DOWNLOAD_DELY", 1, "did you mean DOWNLOAD_DELAY?"),
        ("download_delay", 1, "did you mean DOWNLOAD_DELAY?"),
        ("USER_AGENT", "x", "USER_AGENT cannot be changed while a crawl runs; can: LOG_LEVEL,"),
        ("DOWNLOAD_DELAY", "fast", "DOWNLOAD_DELAY=fast: a number of seconds is needed, 0 or more"),
        ("DOWNLOAD_DELAY", -1, "0 or more"),
        ("DOWNLOAD_TIMEOUT", "nan", "0 or more"),
        ("LOG_LEVEL", "DEBUGG", "did you mean DEBUG?"),
        ("LOG_LEVEL", 55, "a level is needed"),
        ("CONCURRENT_REQUESTS", 1.5, "a whole number is needed, 0 or more"),
        ("CONCURRENT_REQUESTS_PER_DOMAIN", 0, "a whole number is needed, 1 or more"),
        ("AUTOTHROTTLE_TARGET_CONCURRENCY", 0, "more than 0"),
        ("RANDOMIZE_DOWNLOAD_DELAY", "perhaps", "True or False is needed"),
        ("workers", True, "a whole number is needed"),
        ("CLOSESPIDER_ITEMCOUNT", "many", "a whole number is needed"),
    ],
)
def test_one_line_says_what_is_wrong(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse_settings({name: value})  # type: ignore[dict-item]
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_values_are_taken_as_users_type_them() -> None:
    assert parse_settings(
        {
            "LOG_LEVEL": "debug",
            "DOWNLOAD_DELAY": " 0.5",
            "workers": "2",
            "RANDOMIZE_DOWNLOAD_DELAY": "no",
            "CONCURRENT_REQUESTS": 4,
        }
    ) == {
        "LOG_LEVEL": "DEBUG",
        "DOWNLOAD_DELAY": 0.5,
        "workers": 2,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "CONCURRENT_REQUESTS": 4,
    }


def test_one_wrong_value_changes_nothing(crawl: Frontier, store: Store) -> None:
    with pytest.raises(ConfigError):
        Control(store).set(crawl.crawl_id, {"DOWNLOAD_DELAY": 1, "workers": "x"})
    assert Control(store).get(crawl.crawl_id) == (1, {})


def test_a_crawl_that_is_over_or_unknown_is_not_changed(crawl: Frontier, store: Store) -> None:
    Crawls(store).kill(crawl.crawl_id)
    with pytest.raises(StateError, match="is stopped: its settings cannot be changed any more"):
        Control(store).set(crawl.crawl_id, {"DOWNLOAD_DELAY": 1})
    with pytest.raises(CrawlNotFoundError, match="vscrapy -l"):
        Control(store).set(CrawlId("nothere"), {"DOWNLOAD_DELAY": 1})


# How a change reaches the children.


def test_a_change_wakes_all_children_and_moves_the_number(crawl: Frontier, store: Store) -> None:
    a, b = begun(crawl, "a", "b")
    while crawl.wait(a.token, 0) or crawl.wait(b.token, 0):
        pass
    control = Control(store)
    assert control.set(crawl.crawl_id, {"LOG_LEVEL": "DEBUG"}) == 2
    assert control.set(crawl.crawl_id, {"DOWNLOAD_DELAY": "2", "LOG_LEVEL": "INFO"}) == 3
    assert crawl.wait(a.token, 1)
    assert crawl.wait(b.token, 1)
    assert a.step().control == 3
    assert control.get(crawl.crawl_id) == (3, {"LOG_LEVEL": "INFO", "DOWNLOAD_DELAY": 2.0})
    assert Crawls(store).view(crawl.crawl_id).control == 3


def test_a_limit_below_what_is_done_ends_the_crawl(crawl: Frontier, store: Store) -> None:
    (a,) = begun(crawl, "a")
    a.step(item_count=3, items=b"x", requests=requests(range(9)))
    control = Control(store)
    control.set(crawl.crawl_id, {"CLOSESPIDER_ITEMCOUNT": 5, "CLOSESPIDER_TIMEOUT": 0.5})
    raw = store.client.hmget(crawl_key(crawl.crawl_id, "meta"), "limit_items", "limit_timeout_ms")
    assert raw == [b"5", b"500"]
    assert a.step().state is CrawlState.RUNNING
    control.set(crawl.crawl_id, {"CLOSESPIDER_ITEMCOUNT": 3})
    assert Crawls(store).view(crawl.crawl_id).state is CrawlState.CLOSING
    reply = a.step(want=1)
    assert (reply.state, reply.close_reason) == (CrawlState.CLOSING, "closespider_itemcount")


def test_of_too_many_workers_the_last_ones_leave(crawl: Frontier, store: Store) -> None:
    children = begun(crawl, "a", "b", "c")
    for number, child in enumerate(children):
        key = crawl_key(crawl.crawl_id, f"m:{child.token}")
        store.client.hset(key, "joined_ms", 1000 - number if child.token == "c" else number)
    children[0].step(requests=requests(range(90)))
    Control(store).set(crawl.crawl_id, {"workers": 2})
    replies = {child.token: child.step(want=1) for child in children}
    assert {token: reply.leave for token, reply in replies.items()} == {
        "a": False,
        "b": False,
        "c": True,
    }
    assert replies["c"].leases == ()
    assert Crawls(store).view(crawl.crawl_id).workers_max == 2
    crawl.leave(children[2].token)
    with pytest.raises(StateError, match="as many workers"):
        Child(crawl, "d")
    Control(store).set(crawl.crawl_id, {"workers": 0})
    Child(crawl, "d")


def test_more_workers_are_woken_when_more_are_allowed(store: Store) -> None:
    crawl = order(store, workers=1)
    (a,) = begun(crawl, "a")
    a.step(requests=requests(range(90)))
    worker = WorkerName("w9")
    assert not crawl.reserve(MemberToken("b"), worker)
    a.step(requests=requests(range(100, 190)))
    assert not store.pop_wake("vscrapy:wake:w9", timeout_s=0.01)  # it could not join anyway
    Control(store).set(crawl.crawl_id, {"workers": 2})
    assert store.pop_wake("vscrapy:wake:w9", timeout_s=1)
    assert crawl.reserve(MemberToken("b"), worker)


# Limits of slots.


def test_every_slot_follows_what_the_first_step_says_of_all(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    own = (SlotLimit("slow", 1, exclusive=True, words="DOWNLOAD_SLOTS delay = 5"),)
    a.step(limits=own)
    crawl.push(requests(range(40), slot="other"))
    crawl.push(requests(range(40), slot="slow", filtered=False))
    reply = a.step(want=50)
    assert {s.slot: s.concurrency for s in reply.shares} == {"other": 4, "slow": 1}
    assert len([x for x in reply.leases if x.slot == "slow"]) == 2  # not more than may start soon
    assert {s.slot for s in b.step(want=50).shares} == {"other"}


def test_a_pushed_slot_is_taken_carefully_until_a_child_knows_it(crawl: Frontier) -> None:
    a, b = Child(crawl, "a"), Child(crawl, "b")
    (start,) = a.step(want=1).leases
    crawl.push(requests(range(9), slot="new"))
    assert [(s.slot, s.concurrency) for s in a.step(want=9).shares] == [("new", 1)]
    assert b.step(want=9).leases == ()


def test_a_delay_set_while_two_share_a_slot_leaves_it_to_one(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(requests=requests(range(200)), limits=())
    a.step(want=4)
    b.step(want=4)
    assert (a.shares, b.shares) == ({"site": 4}, {"site": 4})
    b.step(default_limit=SLOW, control=2, slots=(SlotUse("site", 4, 0),))
    assert b.shares == {"site": 8}
    # The other one is told with its next step, and once more if that got lost.
    a.step(want=4, slots=(SlotUse("site", 4, 0),))
    assert a.shares == {"site": 0}
    a.shares = {}
    a.again()
    a.step(want=4, slots=(SlotUse("site", 4, 0),))
    assert a.shares == {"site": 0}
    c = Child(crawl, "c")
    assert c.step(want=4).leases == ()
    b.step(slots=())
    assert c.step(want=4).leases == ()  # what a sends is not at its end
    a.step(slots=(SlotUse("site", 0, 0),))
    reply = c.step(want=4)
    assert [(s.slot, s.concurrency) for s in reply.shares] == [("site", 8)]
    assert a.step(want=4, slots=()).leases == ()


def test_a_delay_taken_away_lets_all_use_the_slot(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(default_limit=SLOW)
    a.step(requests=requests(range(200)), limits=())
    a.step(want=4)
    assert b.step(want=4).leases == ()  # b waits now
    a.step(default_limit=FREE, control=2)
    a.step()  # its smaller share is in force now
    assert crawl.wait(b.token, 1)
    assert len(b.step(want=4).leases) == 4
    assert (a.shares, b.shares) == ({"site": 4}, {"site": 4})


def test_who_waits_for_a_slot_hears_that_all_may_use_it(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(default_limit=SLOW)
    a.step(requests=requests(range(200)), limits=())
    a.step(want=4)
    assert b.step(want=4).leases == ()
    while crawl.wait(b.token, 0):
        pass
    a.step(default_limit=SlotLimit("", 32), control=2)  # its share grows
    assert crawl.wait(b.token, 1)
    assert len(b.step(want=4).leases) == 4


def test_a_slots_own_limit_is_remembered_while_nobody_uses_it(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(limits=(SlotLimit("narrow", 2, words="DOWNLOAD_SLOTS concurrency = 2"),))
    b.step()
    crawl.push(requests(range(9), slot="narrow"))
    assert [(s.slot, s.concurrency) for s in b.step(want=9).shares] == [("narrow", 1)]
    assert b.step(want=9, slots=(SlotUse("narrow", 1, 0),)).leases == ()
    assert a.step(want=9).shares[0].concurrency == 1


def test_what_an_older_setting_says_counts_no_more(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    b.step(default_limit=SLOW, control=2)
    a.step(requests=requests(range(20)), limits=(SlotLimit("site", 8),), default_limit=FREE)
    assert [s.concurrency for s in b.step(want=4, control=2).shares] == [8]
    assert a.step(want=4).leases == ()


@pytest.mark.parametrize(("before", "after", "shares"), [(8, 2, [1, 1]), (2, 8, [4, 4])])
def test_shares_follow_another_concurrency(
    crawl: Frontier, before: int, after: int, shares: list[int]
) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(default_limit=SlotLimit("", before))
    a.step(requests=requests(range(200)), limits=())
    for child in (a, b):
        child.step(want=9)
    for _ in range(2):  # what became smaller is in force with the next step
        for child in (a, b):
            child.step(default_limit=SlotLimit("", after), control=2)
    for child in (a, b):
        child.step(want=4)
    assert [a.shares["site"], b.shares["site"]] == shares


def test_what_holds_a_crawl_is_named_as_long_as_it_does(crawl: Frontier, store: Store) -> None:
    def limited_by() -> str:
        return Crawls(store).view(crawl.crawl_id).limited_by

    (a,) = begun(crawl, "a")
    a.step(requests=requests(range(30), slot="example.com"), limits=())
    leases = a.step(want=4, slots=()).leases
    assert (len(leases), limited_by()) == (4, "")
    full = (SlotUse("example.com", 8, 0),)
    assert a.step(want=4, slots=full).leases == ()
    assert limited_by() == "CONCURRENT_REQUESTS_PER_DOMAIN = 8 on example.com"
    a.step(default_limit=SLOW, control=2, slots=full)
    a.step(want=4, slots=full)
    assert limited_by() == "DOWNLOAD_DELAY = 1 on example.com"
    a.step(want=4, slots=(SlotUse("example.com", 8, 9),))
    assert limited_by() == ""


# Pushing.


def test_pushed_requests_wake_a_child_that_waits(crawl: Frontier) -> None:
    a, b = begun(crawl, "a", "b")
    a.step(want=1)
    b.step(want=1)
    while crawl.wait(b.token, 0):
        pass
    assert crawl.push([pushed("http://example.com/a"), pushed("http://example.com/a")]) == 2
    assert crawl.wait(b.token, 1)
    (lease,) = b.step(want=1).leases
    assert (lease.slot, lease.kind) == ("example.com", LeaseKind.REQUEST)
    assert msgspec.msgpack.decode(lease.payload) == {
        "url": "http://example.com/a",
        "dont_filter": True,
    }


def test_pushed_fingerprints_are_filtered_as_others(crawl: Frontier) -> None:
    (a,) = begun(crawl, "a")
    a.step(requests=requests(range(5)), limits=())
    assert crawl.push(requests(range(3, 8))) == 3
    assert a.step().totals.queued == 8


def test_more_than_a_script_may_handle_is_pushed_in_pieces(crawl: Frontier) -> None:
    (a,) = begun(crawl, "a")
    assert crawl.push(requests(range(2500))) == 2500
    assert a.step().totals.queued == 2500


def test_a_push_while_the_end_is_decided_is_not_lost(crawl: Frontier, store: Store) -> None:
    (a,) = begun(crawl, "a")
    (idle,) = a.step(want=1).leases
    assert idle.kind is LeaseKind.IDLE
    Crawls(store).push(crawl.crawl_id, ["http://example.com/"])
    (lease,) = a.step(ended=(idle.lease_id,), want=1).leases
    assert lease.kind is LeaseKind.REQUEST
    (idle,) = a.step(ended=(lease.lease_id,), want=1).leases
    assert idle.kind is LeaseKind.IDLE
    assert a.step(ended=(idle.lease_id,), want=1).state is CrawlState.CLOSING


def test_nothing_is_pushed_to_a_crawl_that_ends(crawl: Frontier, store: Store) -> None:
    (a,) = begun(crawl, "a")
    Crawls(store).stop(crawl.crawl_id)
    with pytest.raises(StateError, match="is closing; run it again with --keep-open to add URLs"):
        Crawls(store).push(crawl.crawl_id, ["http://example.com/"])
    crawl.leave(a.token)
    with pytest.raises(StateError, match="is stopped; run it again with --keep-open"):
        Crawls(store).push(crawl.crawl_id, ["http://example.com/"])
    with pytest.raises(CrawlNotFoundError):
        Crawls(store).push(CrawlId("nothere"), ["http://example.com/"])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("example.com/page", "write the whole URL, as in https://example.com/page"),
        ("/page", "write the whole URL"),
        ("http:///page", "it names no host"),
        ("http://h:port/", "http://h:port/: "),
        ("http://[::1/", "http://[::1/: "),
        ("javascript:void(0)", "Scrapy does not download javascript: URLs"),
        ("data:", "there is nothing after data:"),
    ],
)
def test_what_is_no_url_is_named_and_nothing_is_queued(
    crawl: Frontier, store: Store, url: str, says: str
) -> None:
    with pytest.raises(ConfigError) as wrong:
        Crawls(store).push(crawl.crawl_id, ["http://example.com/", url])
    assert says in str(wrong.value)
    assert Crawls(store).view(crawl.crawl_id).totals.queued == 0


def test_names_that_are_none_and_fields_that_requests_lack_are_refused() -> None:
    with pytest.raises(ConfigError, match="'parse page' is no name of a method"):
        pushed("http://example.com/", callback="parse page")
    with pytest.raises(ConfigError, match="has no method_name"):
        pushed("http://example.com/", fields={"method_name": "POST"})
    with pytest.raises(ConfigError, match="its meta cannot leave this process"):
        pushed("http://example.com/", fields={"meta": {"file": open(__file__)}})  # noqa: PTH123, SIM115


@pytest.mark.parametrize(
    ("url", "slot"),
    [
        ("HTTP://Example.COM:8080/x", "example.com"),
        ("https://münchen.de/straße", "xn--mnchen-3ya.de"),
        ("http://[::1]:80/", "::1"),
        ("data:text/plain,x", ""),
        ("file:///tmp/x", ""),
    ],
)
def test_the_slot_is_the_one_of_scrapys_downloader(url: str, slot: str) -> None:
    assert pushed(url).slot == slot


# Waiting.


def test_a_crawl_kept_open_waits_until_urls_come(store: Store) -> None:
    crawl = order(store, keep_open=True)
    (a,) = begun(crawl, "a")
    reply = a.step(want=1)
    assert (reply.state, reply.leases) == (CrawlState.WAITING, ())
    view = Crawls(store).view(crawl.crawl_id)
    assert (view.why, view.limited_by) == ("kept open: push URLs or stop it", "")
    assert view.since_ms >= view.created_ms
    while crawl.wait(a.token, 0):
        pass
    assert a.step(want=1).state is CrawlState.WAITING
    assert not crawl.wait(a.token, 0)  # waiting wakes nobody, so it costs nothing
    Crawls(store).push(crawl.crawl_id, ["http://example.com/"])
    assert crawl.wait(a.token, 1)
    reply = a.step(want=1)
    assert (reply.state, len(reply.leases)) == (CrawlState.RUNNING, 1)
    reply = a.step(ended=(reply.leases[0].lease_id,), want=1)
    assert reply.state is CrawlState.WAITING
    Crawls(store).stop(crawl.crawl_id)
    assert a.step().state is CrawlState.CLOSING
    assert crawl.leave(a.token) is CrawlState.STOPPED


def test_a_crawl_that_nobody_works_on_says_since_when(store: Store) -> None:
    crawl = order(store, keep_open=True)
    (a,) = begun(crawl, "a")
    a.step(want=1)
    before = Crawls(store).view(crawl.crawl_id).since_ms
    wait_until(lambda: int(time.time() * 1000) > before + 2, 1)
    crawl.leave(a.token)
    view = Crawls(store).view(crawl.crawl_id)
    assert (view.state, view.why) == (CrawlState.WAITING, "no worker takes part")
    assert view.since_ms > before
    crawl.renew([])
    assert Crawls(store).view(crawl.crawl_id).since_ms == view.since_ms


# Workers.


def test_a_workers_slots_are_set_and_it_is_woken(store: Store) -> None:
    control, name = Control(store), WorkerName("host-1")
    record = WorkerRecord(name=name, host="h", pid=3, slots=8)
    Presence(store).beat_worker(record)
    assert control.worker_settings(name) == {}
    control.set_worker(name, {"slots": "4"})
    assert control.worker_settings(name) == {"slots": 4}
    assert Presence(store).wait_worker(name, timeout_s=1)
    with pytest.raises(ConfigError, match=r"there is no worker host-2; did you mean host-1\?"):
        control.set_worker(WorkerName("host-2"), {"slots": 4})
    with pytest.raises(ConfigError, match="slot cannot be changed while a worker runs; did you"):
        control.set_worker(name, {"slot": 4})
