"""Who collects a crawl: one session at a time; what a former one still sends changes nothing."""

import msgspec
import pytest

from tests.store.test_refused import dump, full
from vscrapy_magic.errors import CrawlNotFoundError, NotCollectorError, StoreRolledBackError
from vscrapy_magic.store.arrivals import Arrivals
from vscrapy_magic.store.collectors import Collectors, Kept, Standing
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, SessionId, crawl_key
from vscrapy_magic.store.messages import Bundle, CrawlSpec, SessionRecord
from vscrapy_magic.store.outputs import Claim, Doorbell, Outputs, Witness
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.presence import Presence

from .driver import Child, order, requests

TTL_MS = 60_000


def session(name: str) -> SessionRecord:
    return SessionRecord(session=SessionId(name), host=f"host-{name}", pid=7, kind="terminal")


def collectors(store: Store, crawl: Frontier, name: str, *, place: str = "") -> Collectors:
    """Of a session that is there."""
    Presence(store).beat_session(session(name), ttl_ms=TTL_MS)
    return Collectors(store, crawl.crawl_id, session(name), place or f"place-{name}")


def claim_of(standing: Standing) -> Claim:
    assert standing.claim is not None
    return standing.claim


@pytest.fixture
def crawl(store: Store) -> Frontier:
    """A detached crawl that nobody collects, with three outputs."""
    crawl = order(store)
    child = Child(crawl, "a")
    (start,) = child.step(want=1).leases
    child.step(ended=(start.lease_id,), requests=requests(range(4)))
    for number in range(3):
        child.step(item_count=1, items=b"%d" % number)
    return crawl


def test_a_second_session_is_told_who_collects_and_changes_nothing(
    store: Store, crawl: Frontier
) -> None:
    first, second = (collectors(store, crawl, name) for name in "ab")
    claim = claim_of(first.wish())
    before = dump(store, crawl)
    for ask in (second.wish, second.look):
        standing = ask()
        assert standing.claim is None
        assert standing.holder == session("a")
        assert not standing.is_here
    assert dump(store, crawl) == before
    (output, *_) = Outputs(store, crawl.crawl_id).read()
    Outputs(store, crawl.crawl_id).ack(output, claim, 1)


@pytest.mark.parametrize("how", ["ends", "is judged gone", "leaves"])
def test_the_place_of_one_that_is_gone_is_free(store: Store, crawl: Frontier, how: str) -> None:
    first, second = (collectors(store, crawl, name) for name in "ab")
    claim = claim_of(first.wish())
    if how == "ends":
        Presence(store).end_session(session("a").session)
    elif how == "leaves":
        first.leave(claim)
        first.leave(claim)
    else:
        store.client.zadd("vscrapy:sessions:due", {"a": 1})
        assert second.wish().holder == session("a")  # nobody has judged it yet
        Presence(store).beat_session(session("b"), ttl_ms=TTL_MS)
    taken = claim_of(second.wish())
    assert taken.no == claim.no + 1
    with pytest.raises(NotCollectorError):
        Outputs(store, crawl.crawl_id).ack(Outputs(store, crawl.crawl_id).read()[0], claim, 1)


def test_a_session_that_placed_a_crawl_collects_it_from_the_beginning(store: Store) -> None:
    Presence(store).beat_session(session("a"), ttl_ms=TTL_MS)
    spec = CrawlSpec(crawl_id=new_crawl_id(), spider="s", bundle="none")
    placement = Placement(store)
    ground = msgspec.structs.replace(placement.survey("none"), has_bundle=True)
    placement.create(spec, ground, Bundle(files={}, entry=""), collector=session("a"))
    crawl = Frontier(store, spec.crawl_id)
    assert collectors(store, crawl, "b").wish().holder == session("a")
    first = collectors(store, crawl, "a").first()
    assert Arrivals(store, spec.crawl_id).fetch(None, "0-0", claim=first).outputs == []


def test_what_a_former_collector_sends_late_changes_nothing(store: Store, crawl: Frontier) -> None:
    first, second = (collectors(store, crawl, name) for name in "ab")
    outputs, arrivals = Outputs(store, crawl.crawl_id), Arrivals(store, crawl.crawl_id)
    one, two, _ = outputs.read()
    old = claim_of(first.wish())
    outputs.ack(one, old, 1)
    new = claim_of(second.take())
    before = dump(store, crawl)
    with pytest.raises(NotCollectorError):
        outputs.ack(two, old, 2)
    with pytest.raises(NotCollectorError):
        arrivals.fetch(one.witness, "0-0", claim=old, ack=two, items=2)
    assert dump(store, crawl) == before
    again = claim_of(first.take())
    for late in (old, new):
        with pytest.raises(NotCollectorError):
            outputs.ack(two, late, 2)
    outputs.ack(two, again, 2)


def test_one_whose_outputs_another_acknowledged_reads_no_roll_back(
    store: Store, crawl: Frontier
) -> None:
    first, second = (collectors(store, crawl, name) for name in "ab")
    arrivals = Arrivals(store, crawl.crawl_id)
    old = claim_of(first.wish())
    one, _, three = arrivals.fetch(None, "0-0", claim=old).outputs
    arrivals.ack(one, old, 1)
    arrivals.ack(three, claim_of(second.take()), 2)
    with pytest.raises(NotCollectorError):
        arrivals.fetch(one.witness, "0-0", claim=old)
    with pytest.raises(NotCollectorError):
        arrivals.fetch(one.witness, "0-0", claim=old, ack=one, items=1)
    assert not Crawls(store).view(crawl.crawl_id).over


def test_another_place_goes_on_after_what_is_acknowledged_and_knows_who_has_the_rest(
    store: Store, crawl: Frontier
) -> None:
    first, second = (collectors(store, crawl, name) for name in "ab")
    arrivals = Arrivals(store, crawl.crawl_id)
    claim = claim_of(first.wish())
    one, two, three = arrivals.fetch(None, "0-0", claim=claim).outputs
    arrivals.ack(one, claim, 1)
    arrivals.ack(two, claim, 2)
    first.leave(claim)
    standing = second.wish()
    assert standing.elsewhere == (Kept("host-a", 2),)
    assert (standing.acked, standing.own_no) == (two.witness, 0)
    found = arrivals.fetch(standing.acked, "0-0", claim=standing.claim)
    assert found.outputs == [three]
    arrivals.ack(three, claim_of(standing), 1)
    back = first.take()
    assert back.elsewhere == (Kept("host-b", 1),)
    assert (back.acked, back.own_no) == (three.witness, two.commit_no)


def test_two_folders_of_one_host_are_two_places_and_one_folder_is_one(
    store: Store, crawl: Frontier
) -> None:
    first = collectors(store, crawl, "a", place="p")
    claim = claim_of(first.wish())
    one, *_ = Outputs(store, crawl.crawl_id).read()
    Outputs(store, crawl.crawl_id).ack(one, claim, 1)
    beside = collectors(store, crawl, "b", place="p").look()
    assert beside.is_here
    assert (beside.own_no, beside.elsewhere) == (one.commit_no, ())


def test_a_server_that_lost_a_claim_gives_it_again_and_is_found_out_by_its_outputs(
    store: Store, crawl: Frontier
) -> None:
    first = collectors(store, crawl, "a")
    claim_of(first.wish())
    claim = claim_of(first.wish())
    arrivals = Arrivals(store, crawl.crawl_id)
    one, *_ = arrivals.fetch(None, "0-0", claim=claim).outputs
    store.client.hset(crawl_key(crawl.crawl_id, "meta"), "collector_no", 1)
    with pytest.raises(NotCollectorError):
        arrivals.fetch(one.witness, "0-0", claim=claim)
    again = claim_of(first.wish())
    arrivals.fetch(one.witness, "0-0", claim=again)
    with pytest.raises(StoreRolledBackError):
        arrivals.fetch(Witness(one.commit_no, "of another history"), "0-0", claim=again)


def test_a_full_server_lets_a_session_collect(store: Store, crawl: Frontier) -> None:
    first = collectors(store, crawl, "a")
    with full(store):
        claim = claim_of(first.wish())
        one, *_ = Outputs(store, crawl.crawl_id).read()
        Outputs(store, crawl.crawl_id).ack(one, claim, 1)
    assert first.look().own_no == one.commit_no


def test_a_crawl_that_is_past_its_retention_is_named(store: Store) -> None:
    Presence(store).beat_session(session("a"), ttl_ms=TTL_MS)
    with pytest.raises(CrawlNotFoundError, match="crawl 0badc0de: past its retention"):
        Collectors(store, CrawlId("0badc0de"), session("a"), "p").take()
    assert store.client.keys("vscrapy:{*") == []


def test_what_others_collect_does_not_wake_one_that_watches(store: Store, crawl: Frontier) -> None:
    with store.blocking_client() as client:
        bell = Doorbell(client, crawl.crawl_id)
        assert bell.wait(None, "0-0", 0.05)
        assert not bell.wait(None, "0-0", 0.05, with_outputs=False)
