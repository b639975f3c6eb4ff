"""Placing a crawl: what is asked before, who is woken, and what it costs in round trips."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.placing import place
from tests.relay import Relay
from tests.store.driver import Child
from vscrapy_magic.errors import StateError, StoreAuthError, StoreUnreachableError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.messages import Bundle, CrawlSpec, CrawlState, WorkerRecord
from vscrapy_magic.store.placement import BUNDLE_TTL_MS, Placement, bundle_key
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Shared

BUNDLE = Bundle(files={"a.py": b"a = 1"}, entry="a.py")
DIGEST = "f00d"


def new_spec() -> CrawlSpec:
    return CrawlSpec(crawl_id=new_crawl_id(), spider="s", bundle=DIGEST)


@contextmanager
def round_trips(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of the server, one entry for each wait."""
    asked: list[str] = []

    def counted(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return ask(*args, **kwargs)

        return call

    client = store.client
    with monkeypatch.context() as patch:
        patch.setattr(client, "execute_command", counted("command", client.execute_command))
        pipeline = client.pipeline

        def new_pipeline(**options: Any) -> Any:
            pipe = pipeline(**options)
            pipe.execute = counted("pipeline", pipe.execute)
            return pipe

        patch.setattr(client, "pipeline", new_pipeline)
        yield asked


def test_a_placed_crawl_is_queued_with_its_source_and_the_workers_wake(
    store: Store, worker_record: WorkerRecord
) -> None:
    placement, presence = Placement(store), Presence(store)
    presence.beat_worker(worker_record)
    Shared(store).set({"out_bytes_max": str(2**21)})
    ground = placement.survey(DIGEST)
    assert ground.workers == (worker_record.name,)
    assert (ground.has_bundle, ground.defaults.out_bytes_max) == (False, 2**21)
    spec = new_spec()
    view = placement.create(spec, ground, BUNDLE)
    assert (view.spec, view.state, view.members) == (spec, CrawlState.QUEUED, ())
    assert view == Crawls(store).view(spec.crawl_id)
    assert Crawls(store).bundle(DIGEST) == BUNDLE
    assert presence.wait_worker(worker_record.name, 0)
    assert not presence.wait_worker(worker_record.name, 0)
    Child(Frontier(store, spec.crawl_id), "w")


def test_source_that_is_there_is_not_sent_again_and_kept_for_longer(store: Store) -> None:
    placement = Placement(store)
    placement.create(new_spec(), placement.survey(DIGEST), BUNDLE)
    store.client.pexpire(bundle_key(DIGEST), 1000)
    ground = placement.survey(DIGEST)
    assert ground.has_bundle
    assert store.client.pttl(bundle_key(DIGEST)) > BUNDLE_TTL_MS - 60_000
    placement.create(new_spec(), ground, Bundle(files={}, entry="other.py"))
    assert Crawls(store).bundle(DIGEST) == BUNDLE


def test_placing_takes_two_round_trips_and_a_third_for_new_source(
    store: Store, worker_record: WorkerRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = Placement(store)
    Presence(store).beat_worker(
        *(msgspec.structs.replace(worker_record, name=f"w{n}") for n in range(5))
    )
    place(store, msgspec.structs.replace(new_spec(), bundle="other"))  # it knows the script now
    for expected in (["pipeline", "command", "pipeline"], ["pipeline", "pipeline"]):
        with round_trips(store, monkeypatch) as asked:
            placement.create(new_spec(), placement.survey(DIGEST), BUNDLE)
        assert asked == expected


def test_a_server_that_was_restarted_gets_the_script(store: Store) -> None:
    placement = Placement(store)
    store.client.script_flush()
    spec = new_spec()
    assert placement.create(spec, placement.survey(DIGEST), BUNDLE).crawl_id == spec.crawl_id


def test_a_crawl_is_placed_once(store: Store) -> None:
    placement, spec = Placement(store), new_spec()
    ground = placement.survey(DIGEST)
    placement.create(spec, ground, BUNDLE)
    with pytest.raises(StateError, match="exists already"):
        placement.create(spec, ground, BUNDLE)


def test_what_the_server_refuses_is_told(store: Store) -> None:
    url = store.url
    store.client.execute_command(
        *("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@all", "-evalsha")
    )
    try:
        with Store(url.replace("unix://", "unix://poor:pw@")) as poor:
            placement = Placement(poor)
            ground = placement.survey(DIGEST)
            with pytest.raises(StoreAuthError, match="does not let its user do this"):
                placement.create(new_spec(), ground, BUNDLE)
    finally:
        store.client.execute_command("ACL", "DELUSER", "poor")
    assert Crawls(store).list_all() == []


# An order whose answer does not come.


def test_an_order_whose_answer_is_lost_is_one_crawl(store: Store) -> None:
    spec = new_spec()
    place(store, new_spec())  # the server knows the script
    with Relay(store.url) as relay, Store.connect(relay.url) as far:
        placement = Placement(far)
        ground = placement.survey(DIGEST)
        relay.break_after(load_script("create").sha1.encode(), times=2)
        view = placement.create(spec, ground, BUNDLE)
        assert relay.broken == 2
    assert (view.spec, view.state) == (spec, CrawlState.QUEUED)
    assert [each.crawl_id for each in Crawls(store).list_all()].count(spec.crawl_id) == 1


def test_an_order_that_gets_no_answer_for_long_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscrapy_magic.store.placement.CREATE_WITHIN_S", 0.0)
    spec = new_spec()
    place(store, new_spec())
    with Relay(store.url) as relay, Store.connect(relay.url) as far:
        placement = Placement(far)
        ground = placement.survey(DIGEST)
        relay.break_after(load_script("create").sha1.encode(), times=9)
        with pytest.raises(StoreUnreachableError):
            placement.create(spec, ground, BUNDLE)
    assert Crawls(store).view(spec.crawl_id).state is CrawlState.QUEUED  # it has arrived
    for _ in range(2):
        Crawls(store).forgo(spec.crawl_id, why="given up")
    view = Crawls(store).view(spec.crawl_id)
    assert (view.state, view.why) == (CrawlState.CANCELLED, "given up")


def test_an_order_that_arrives_after_it_was_given_up_brings_no_crawl(store: Store) -> None:
    placement, spec = Placement(store), new_spec()
    ground = placement.survey(DIGEST)
    Crawls(store).forgo(spec.crawl_id, why="given up")
    with pytest.raises(StateError, match="exists already"):
        placement.create(spec, ground, BUNDLE)
    assert Crawls(store).list_all() == []
    assert Crawls(store).wanted() == []
    (key,) = store.client.keys("vscrapy:{*")
    assert 0 < store.client.pttl(key) <= 3600_000
