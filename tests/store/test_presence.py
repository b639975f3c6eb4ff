"""Who is there: beats, verdicts, and a pause of everybody that kills nobody."""

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import SessionRecord, WorkerRecord
from vscrapy_magic.store.presence import Liveness, Presence

from .driver import order

OURS = SessionRecord(session=SessionId("ours"), host="h", pid=1)
OTHER = SessionRecord(session=SessionId("other"), host="h", pid=2)


def expire(store: Store, kind: str, name: str) -> None:
    store.client.zadd(f"vscrapy:{kind}:due", {name: 1})


def test_workers_are_listed_with_how_sure_it_is(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_worker(worker_record)
    (view,) = presence.workers()
    assert (view.record, view.liveness) == (worker_record, Liveness.LIVE)
    seconds, _ = store.client.time()
    store.client.zadd("vscrapy:workers:due", {"w1": seconds * 1000 + 3000})
    assert presence.workers()[0].liveness is Liveness.LATE
    expire(store, "workers", "w1")
    assert presence.workers()[0].liveness is Liveness.GONE
    presence.beat_worker(worker_record)
    assert presence.workers()[0].liveness is Liveness.LIVE
    presence.remove_worker(worker_record.name)
    assert presence.workers() == []


def test_a_silent_session_is_judged_gone_and_never_comes_back(
    store: Store, worker_record: WorkerRecord
) -> None:
    presence = Presence(store)
    crawl = order(store)
    assert presence.beat_session(OURS).alive
    assert presence.beat_session(OTHER).alive
    expire(store, "sessions", "ours")
    beat = presence.beat_worker(worker_record)
    assert beat.gone_sessions == {"ours"}
    assert beat.live_crawls == (crawl.crawl_id,)
    assert not presence.beat_session(OURS).alive
    assert presence.beat_session(OTHER).alive


def test_an_ended_session_is_gone_at_once(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    presence.end_session(OURS.session)
    assert presence.beat_worker(worker_record).gone_sessions == {"ours"}


def test_a_pause_of_everybody_kills_no_session(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    expire(store, "sessions", "ours")
    store.client.set("vscrapy:judged", 1)
    assert presence.beat_worker(worker_record).gone_sessions == frozenset()
    assert presence.beat_session(OURS).alive
