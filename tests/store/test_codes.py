"""New code of a crawl: in force on all workers or on none; then no lease is for the old one."""

import pytest

from tests.store.driver import Child, order, requests
from tests.waiting import wait_until
from vscrapy_magic.errors import StateError
from vscrapy_magic.store import codes as codes_module
from vscrapy_magic.store.codes import ACCEPTED, REFUSED, Codes
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key
from vscrapy_magic.store.messages import Bundle, CloseLimits, Code, CrawlState
from vscrapy_magic.store.placement import BUNDLE_TTL_MS, bundle_key

BUNDLE = Bundle(files={}, entry="")
CODE = Code(bundle="b2", spider="s")


@pytest.fixture
def crawl(store: Store) -> Frontier:
    return order(store)


def begun(frontier: Frontier, *names: str) -> list[Child]:
    """Children of whom the first has brought some requests."""
    children = [Child(frontier, name) for name in names]
    (start,) = children[0].step(want=1).leases
    children[0].step(ended=(start.lease_id,), requests=requests(range(20)))
    return children


def worker(child: Child) -> WorkerName:
    return WorkerName(child.token)


def trial(child: Child, name: str = "trial") -> MemberToken:
    return MemberToken(f"{child.token}.{name}")


def offered(store: Store, frontier: Frontier, code: Code = CODE) -> int:
    offer = Codes(store).offer(frontier.crawl_id, code, BUNDLE)
    assert offer.version
    return offer.version


def test_code_is_in_force_when_all_workers_have_it(store: Store, crawl: Frontier) -> None:
    one, two = begun(crawl, "w1", "w2")
    codes = Codes(store)
    (lease,) = one.step(want=1).leases
    version = offered(store, crawl)
    assert codes.can(crawl.crawl_id, version, worker(one), trial(one)).in_force == 1
    assert len(two.step(want=2).leases) == 2  # nothing has changed
    said = codes.can(crawl.crawl_id, version, worker(two), trial(two))
    assert (said.in_force, said.offered, said.said) == (2, 0, ACCEPTED)
    assert Crawls(store).view(crawl.crawl_id).code_version == 2
    reply = two.step(want=2)
    assert (reply.patched, reply.leave, reply.leases) == (True, False, ())
    reply = one.step(ended=(lease.lease_id,), want=5)  # what was begun is finished
    assert (reply.patched, reply.leases) == (True, ())
    crawl.join(trial(one), worker(one), code_version=2)
    assert codes.get(Crawls(store).view(crawl.crawl_id).spec, 2) == CODE


def test_one_that_cannot_refuses_for_all_and_a_late_answer_changes_nothing(
    store: Store, crawl: Frontier
) -> None:
    one, two = begun(crawl, "w1", "w2")
    codes = Codes(store)
    version = offered(store, crawl)
    codes.cannot(crawl.crawl_id, version, worker(two), "NameError")
    said = codes.can(crawl.crawl_id, version, worker(one), trial(one))
    assert (said.in_force, said.said, said.by, said.text) == (1, REFUSED, worker(two), "NameError")
    assert not one.step(want=1).patched
    with pytest.raises(StateError, match="out of force"):
        crawl.join(trial(one), worker(one), code_version=version)
    assert offered(store, crawl) == version + 1  # a refused number is not used again
    assert codes.can(crawl.crawl_id, version, worker(one), trial(one)).said == ""


def test_silence_refuses(store: Store, crawl: Frontier, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(crawl, "w1")
    monkeypatch.setattr(codes_module, "DECIDE_WITHIN_MS", 1)
    version = offered(store, crawl)
    wait_until(lambda: Codes(store).look(crawl.crawl_id, version).said, 5, "a decision")
    said = Codes(store).look(crawl.crawl_id, version)
    assert (said.said, said.by) == (REFUSED, "w1")


def test_member_that_is_gone_is_not_waited_for_and_renewing_decides(
    store: Store, crawl: Frontier
) -> None:
    one, two = begun(crawl, "w1", "w2")
    version = offered(store, crawl)
    Codes(store).can(crawl.crawl_id, version, worker(one), trial(one))
    crawl.reclaim(two.token)
    crawl.renew([one.token])
    assert Crawls(store).view(crawl.crawl_id).code_version == version


def test_when_all_are_gone_the_offer_is_refused(store: Store, crawl: Frontier) -> None:
    (one,) = begun(crawl, "w1")
    version = offered(store, crawl)
    crawl.reclaim(one.token)
    assert Codes(store).look(crawl.crawl_id, version).said == REFUSED


def test_member_that_joins_meanwhile_does_not_hold_it_up_and_makes_way(
    store: Store, crawl: Frontier
) -> None:
    (one,) = begun(crawl, "w1")
    version = offered(store, crawl)
    late = Child(crawl, "w2")
    Codes(store).can(crawl.crawl_id, version, worker(one), trial(one))
    assert late.step(want=1).patched
    with pytest.raises(StateError, match="out of force"):
        Child(crawl, "w3")


def test_one_offer_at_a_time_and_none_while_children_change(store: Store, crawl: Frontier) -> None:
    (one,) = begun(crawl, "w1")
    codes = Codes(store)
    version = offered(store, crawl)
    assert not codes.offer(crawl.crawl_id, CODE, BUNDLE).version
    codes.can(crawl.crawl_id, version, worker(one), trial(one))
    assert not codes.offer(crawl.crawl_id, CODE, BUNDLE).version  # nobody could try it
    crawl.leave(one.token)
    assert not codes.offer(crawl.crawl_id, CODE, BUNDLE).version  # the next is on its way
    crawl.join(trial(one), worker(one), code_version=version)
    assert codes.offer(crawl.crawl_id, CODE, BUNDLE).version == version + 1


def test_crawl_without_workers_takes_it_untried(store: Store, crawl: Frontier) -> None:
    offer = Codes(store).offer(crawl.crawl_id, CODE, BUNDLE)
    assert offer.accepted
    with pytest.raises(StateError, match="out of force"):
        Child(crawl, "w1")


def test_limits_come_with_it_but_for_those_set_by_hand(store: Store, crawl: Frontier) -> None:
    (one,) = begun(crawl, "w1")
    Control(store).set(crawl.crawl_id, {"CLOSESPIDER_PAGECOUNT": 7})
    code = Code(bundle="b", spider="s", limits=CloseLimits(items=5, pages=9, timeout_ms=1000))
    version = offered(store, crawl, code)
    Codes(store).can(crawl.crawl_id, version, worker(one), trial(one))
    names = ("limit_items", "limit_pages", "limit_timeout_ms")
    found = store.client.hmget(crawl_key(crawl.crawl_id, "meta"), *names)
    assert [int(value) for value in found] == [5, 7, 1000]


def test_changing_workers_does_not_bring_old_code_back(store: Store, crawl: Frontier) -> None:
    (one,) = begun(crawl, "w1")
    version = offered(store, crawl)
    Codes(store).can(crawl.crawl_id, version, worker(one), trial(one))
    Control(store).set(crawl.crawl_id, {"workers": 1})
    assert one.step(want=1).patched
    crawl.join(trial(one), worker(one), code_version=version)  # the old one does not count
    with pytest.raises(StateError, match="as many workers"):
        crawl.join(MemberToken("w2.x"), WorkerName("w2"), code_version=version)


def test_crawl_that_ends_takes_none(store: Store, crawl: Frontier) -> None:
    (one,) = begun(crawl, "w1")
    version = offered(store, crawl)
    assert Crawls(store).stop(crawl.crawl_id) in {CrawlState.STOPPING, CrawlState.CLOSING}
    with pytest.raises(StateError, match="its code stays as it is"):
        Codes(store).can(crawl.crawl_id, version, worker(one), trial(one))
    with pytest.raises(StateError, match="its code stays as it is"):
        Codes(store).offer(crawl.crawl_id, CODE, BUNDLE)


def test_all_source_of_a_crawl_can_be_kept_for_longer(store: Store, crawl: Frontier) -> None:
    begun(crawl, "w1")
    version, codes, crawls = offered(store, crawl), Codes(store), Crawls(store)
    spec = crawls.view(crawl.crawl_id).spec
    keys = bundle_key(spec.bundle), bundle_key(codes.get(spec, version).bundle)
    for key in keys:
        store.client.set(key, b"source", px=5000)
    codes.keep_sources([spec])
    for key in keys:
        assert store.client.pttl(key) > BUNDLE_TTL_MS - 60_000
