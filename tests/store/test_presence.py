"""Who is there: beats, verdicts, and a pause of everybody that kills nobody."""

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import SessionRecord, WorkerRecord
from vscrapy_magic.store.presence import FORGET_MS, VERDICT_MS, Liveness, Presence

from .driver import order

OURS = SessionRecord(session=SessionId("ours"), host="h", pid=1)
OTHER = SessionRecord(session=SessionId("other"), host="h", pid=2)


def now_ms(store: Store) -> int:
    seconds, micros = store.client.time()
    return int(seconds * 1000 + micros // 1000)


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
    store.client.hset("vscrapy:sessions:heard", "ours", now_ms(store) - 14_000)
    beat = presence.beat_worker(worker_record)
    assert beat.gone_sessions == {"ours": "its sender was not heard of for 14 s"}
    assert beat.live_crawls == (crawl.crawl_id,)
    back = presence.beat_session(OURS)
    assert (back.alive, back.verdict) == (False, "not heard of for 14 s")
    other = presence.beat_session(OTHER)
    assert (other.alive, other.verdict) == (True, "")
    assert [view.record for view in presence.sessions()] == [OTHER]


def test_a_verdict_is_kept_longer_than_it_is_told(
    store: Store, worker_record: WorkerRecord
) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    presence.end_session(OURS.session)
    store.client.zadd("vscrapy:sessions:gone", {"ours": now_ms(store) - FORGET_MS - 1})
    assert presence.beat_worker(worker_record).gone_sessions == {}
    assert not presence.beat_session(OURS).alive
    store.client.zadd("vscrapy:sessions:gone", {"ours": now_ms(store) - VERDICT_MS - 1})
    presence.beat_worker(worker_record)
    assert not store.client.exists("vscrapy:sessions:gone", "vscrapy:sessions:heard")


def test_of_very_many_gone_sessions_the_newest_are_told(
    store: Store, worker_record: WorkerRecord
) -> None:
    now = now_ms(store)
    gone = {f"s{number}": now - 2000 + number for number in range(1500)}
    store.client.zadd("vscrapy:sessions:gone", gone)
    told = Presence(store).beat_worker(worker_record).gone_sessions
    assert len(told) == 1000
    assert "s1499" in told
    assert "s0" not in told


def test_sessions_are_listed_with_their_silence_whatever_their_ttl(store: Store) -> None:
    presence = Presence(store)
    presence.beat_session(OURS, ttl_ms=60_000)
    assert presence.sessions()[0].liveness is Liveness.LIVE
    store.client.hset("vscrapy:sessions:heard", "ours", now_ms(store) - 8000)
    (view,) = presence.sessions()
    assert (view.liveness, round(view.silent_ms / 1000)) == (Liveness.LATE, 8)
    expire(store, "sessions", "ours")
    assert presence.sessions()[0].liveness is Liveness.GONE


def test_an_ended_session_is_gone_at_once(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    presence.end_session(OURS.session)
    assert presence.beat_worker(worker_record).gone_sessions == {"ours": "its sender is gone"}
    assert presence.beat_session(OURS).verdict == "it has ended"
    assert presence.sessions() == []


def test_an_ended_session_wakes_the_workers(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_worker(worker_record)
    presence.beat_session(OURS)
    presence.end_session(OURS.session)
    assert presence.wait_worker(worker_record.name, 1)


def test_a_verdict_of_silence_is_not_changed_by_an_end(
    store: Store, worker_record: WorkerRecord
) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    expire(store, "sessions", "ours")
    store.client.hset("vscrapy:sessions:heard", "ours", now_ms(store) - 20_000)
    presence.beat_worker(worker_record)
    presence.end_session(OURS.session)
    assert presence.beat_session(OURS).verdict == "not heard of for 20 s"


def test_a_pause_of_everybody_kills_no_session(store: Store, worker_record: WorkerRecord) -> None:
    presence = Presence(store)
    presence.beat_session(OURS)
    expire(store, "sessions", "ours")
    store.client.set("vscrapy:judged", 1)
    assert presence.beat_worker(worker_record).gone_sessions == {}
    assert presence.beat_session(OURS).alive
