"""The life of crawls: who may move them where, what is listed, and what is left at the end."""

import pytest

from tests.placing import place
from tests.store.driver import Child, order
from vscrapy_magic.errors import CrawlNotFoundError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import MOVES, Crawls, Mover, new_crawl_id
from vscrapy_magic.store.keys import CrawlId, SessionId
from vscrapy_magic.store.messages import Bundle, CrawlSpec, CrawlState
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.views import FINAL_STATES


def test_no_move_leads_out_of_a_final_state() -> None:
    assert set(MOVES) == set(CrawlState) - {CrawlState.QUEUED}
    assert not any(allowed & FINAL_STATES for allowed, _ in MOVES.values())


def test_a_new_crawl_is_queued_then_starts(store: Store) -> None:
    frontier = order(store, session=SessionId("s1"), args={"a": "1"})
    view = Crawls(store).view(frontier.crawl_id)
    assert (view.state, view.spec.args, view.members) == (CrawlState.QUEUED, {"a": "1"}, ())
    Child(frontier, "w")
    view = Crawls(store).view(frontier.crawl_id)
    assert (view.state, [m.worker for m in view.members]) == (CrawlState.STARTING, ["w"])
    assert not view.over
    assert frontier.renew([]).session == "s1"


def test_one_id_is_one_crawl(store: Store) -> None:
    frontier = order(store)
    with pytest.raises(StateError, match="exists already"):
        place(store, CrawlSpec(crawl_id=frontier.crawl_id, spider="s", bundle="b"))


def test_wanted_are_those_that_are_not_over(store: Store) -> None:
    crawls, first, second = Crawls(store), order(store), order(store)
    assert [v.crawl_id for v in crawls.wanted()] == [first.crawl_id, second.crawl_id]
    crawls.kill(first.crawl_id)
    assert [v.crawl_id for v in crawls.wanted()] == [second.crawl_id]
    assert [v.crawl_id for v in crawls.list_all()] == [second.crawl_id, first.crawl_id]


def test_a_stop_without_workers_ends_at_once(store: Store) -> None:
    crawls, frontier = Crawls(store), order(store)
    assert crawls.stop(frontier.crawl_id) is CrawlState.STOPPED
    assert crawls.stop(frontier.crawl_id) is CrawlState.STOPPED
    assert crawls.finish_failed(frontier.crawl_id, "late") is CrawlState.STOPPED


def test_a_child_may_not_cancel(store: Store) -> None:
    frontier = order(store)
    with pytest.raises(StateError, match="child may not"):
        Crawls(store).cancel(frontier.crawl_id, Mover.CHILD, why="no")


def test_cancelled_says_why_and_leaves_the_others_alone(store: Store) -> None:
    crawls, mine, other = Crawls(store), order(store), order(store)
    Child(mine, "w")
    crawls.cancel(mine.crawl_id, Mover.WORKER, why="not heard of for 14 s")
    view = crawls.view(mine.crawl_id)
    assert (view.state, view.why) == (CrawlState.CANCELLED, "not heard of for 14 s")
    assert crawls.view(other.crawl_id).state is CrawlState.QUEUED


def test_past_its_retention_nothing_is_left(store: Store) -> None:
    crawls, frontier = Crawls(store), order(store)
    child = Child(frontier, "w")
    child.step(want=1, item_count=1, items=b"x")
    crawls.kill(frontier.crawl_id)
    assert crawls.sweep(frontier.crawl_id, retention_ms=0)
    assert crawls.list_all() == []
    assert store.client.keys() == []
    with pytest.raises(CrawlNotFoundError, match="vscrapy -l"):
        crawls.view(frontier.crawl_id)
    with pytest.raises(CrawlNotFoundError):
        crawls.stop(CrawlId("nothere"))


def test_shipped_source_comes_back(store: Store) -> None:
    bundle = Bundle(files={"spider.py": b"x = 1\n"}, entry="spider.py")
    place(store, CrawlSpec(crawl_id=new_crawl_id(), spider="s", bundle="f00d"), bundle)
    assert Crawls(store).bundle("f00d") == bundle
    with pytest.raises(CrawlNotFoundError, match="bundle"):
        Crawls(store).bundle("beef")


def test_a_new_crawl_wakes_the_workers(store: Store, worker_record: object) -> None:
    presence = Presence(store)
    presence.beat_worker(worker_record)  # type: ignore[arg-type]
    order(store)
    assert presence.wait_worker(worker_record.name, 1)  # type: ignore[attr-defined]
    assert not presence.wait_worker(worker_record.name, 0.01)  # type: ignore[attr-defined]
