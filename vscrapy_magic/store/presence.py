"""Owns who is there: workers and sessions, their beats, and who is judged gone.

Used by supervisors and by the beacons of sessions. A deadline is a number that scripts compare with
the server's clock (`lua/beat.lua`); whoever beats also judges, so no process has to be the master.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic import config
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.frontier import CLAIM_TTL_MS, MEMBER_TTL_MS, READY_PER_CHILD
from vscrapy_magic.store.keys import CrawlId, SessionId, WorkerName, global_key
from vscrapy_magic.store.messages import CrawlState, SessionRecord, WorkerRecord, decode, encode
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Defaults

WORKER_TTL_MS: Final = 10_000  # a worker that was not heard of for so long is gone
# Settings of senders: a session that was not heard of for so long loses its crawls.
SESSION_TTL_MS: Final = Defaults().session_ttl_ms
# Setting of workers and senders: time that every session gets after all stood still.
SESSION_GRACE_MS: Final = config.setting_ms("VSCRAPY_SESSION_GRACE_S", 10_000)
BEAT_MS: Final = 2000  # of idle workers and sessions: two of them fit well into a TTL
FORGET_MS: Final = 3600_000  # how long gone workers stay listed, and news of gone sessions are told
VERDICT_MS: Final = 48 * 3600_000  # for so long a gone session cannot come back: longer than crawls
_LATE_BEATS: Final = 2  # beats missed before a worker is shown as late


class Liveness(enum.StrEnum):
    """How sure it is that somebody is still there."""

    LIVE = "live"
    LATE = "late"
    GONE = "gone"


class WorkerView(msgspec.Struct, frozen=True):
    """One worker and when it was last heard of."""

    record: WorkerRecord
    liveness: Liveness
    silent_ms: int


class SessionView(msgspec.Struct, frozen=True):
    """One session and when it was last heard of."""

    record: SessionRecord
    liveness: Liveness
    silent_ms: int


class LiveCrawl(msgspec.Struct, frozen=True):
    """What a worker must know of a crawl that is not swept yet.

    Attributes:
        state: None when it is past its retention.
        members: children that take part.
        wanted: children that it could have more, now.
        judged_ms: since somebody looked for members that are gone.
        at_risk: whether one of them has not been heard of for a while.
        code_version: number of the code in force.
        offer_version: number of code that workers are to try; 0 for none.
        session: its owner; empty for a detached crawl.
    """

    crawl_id: CrawlId
    state: CrawlState | None
    close_reason: str
    why: str
    members: int
    wanted: int
    judged_ms: int
    at_risk: bool
    code_version: int = 1
    offer_version: int = 0
    session: SessionId = SessionId("")


class Beat(msgspec.Struct, frozen=True):
    """What one learns with a beat.

    Attributes:
        alive: False when this session was judged gone before; it never comes back.
        verdict: why not, in words for its user; empty while it is alive.
        gone_sessions: sessions whose crawls are to be cancelled, and why, in words for users.
        live_crawls: crawls that are not over, or not swept yet, oldest first.
        crawls: more of each of them, for a worker.
    """

    alive: bool
    verdict: str
    gone_sessions: Mapping[SessionId, str]
    live_crawls: tuple[CrawlId, ...]
    crawls: tuple[LiveCrawl, ...] = ()


def gone_words(silent_ms: int) -> str:
    """Why the crawls of a session are cancelled; 0: its process has ended."""
    if silent_ms:
        return f"its sender was {silence_words(silent_ms)}"
    return "its sender is gone"


def silence_words(silent_ms: int) -> str:
    """How long a session was silent when it was judged gone; 0: it has ended, as others say."""
    if silent_ms:
        return f"not heard of for {max(1, round(silent_ms / 1000))} s"
    return "it has ended"


class Presence:
    """Workers and sessions on one Redis; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def beat_worker(self, *records: WorkerRecord, ttl_ms: int = WORKER_TTL_MS) -> Beat:
        """Say that the workers of a process live; judge sessions. One round trip for all."""
        return self._beat("workers", [(r.name, encode(r)) for r in records], ttl_ms)

    def beat_session(self, record: SessionRecord, *, ttl_ms: int = SESSION_TTL_MS) -> Beat:
        """Say that a session lives; judge sessions."""
        return self._beat("sessions", [(record.session, encode(record))], ttl_ms)

    def _beat(self, kind: str, records: Sequence[tuple[str, bytes]], ttl_ms: int) -> Beat:
        keys = (
            *(global_key(kind), global_key(f"{kind}:due"), *_session_keys()),
            *map(global_key, ("judged", "crawls:live", "crawls", "crawls:due")),
        )
        args: list[bytes | str | int] = [
            *(ttl_ms, SESSION_GRACE_MS, BEAT_MS, FORGET_MS, VERDICT_MS),
            *(int(kind == "sessions"), READY_PER_CHILD, MEMBER_TTL_MS, CLAIM_TTL_MS),
            *(part for pair in records for part in pair),
        ]
        alive, silent_ms, gone, live, crawls = self._store.call(load_script("beat"), keys, args)
        pairs = zip(gone[::2], gone[1::2], strict=True)
        return Beat(
            alive=bool(alive),
            verdict="" if alive else silence_words(silent_ms),
            gone_sessions={SessionId(raw.decode()): gone_words(ms) for raw, ms in pairs},
            live_crawls=tuple(CrawlId(raw.decode()) for raw in live),
            crawls=tuple(_live_crawl(*pair) for pair in zip(live, crawls, strict=False)),
        )

    def end_session(self, session: SessionId) -> None:
        """Judge a session gone now, because its process has ended, and let all workers look.

        Whoever looks cancels its crawls. Idempotent.
        """
        self._store.call(load_script("end_session"), _session_keys(), [session])
        Crawls(self._store).wake_workers()

    def remove_worker(self, *names: WorkerName) -> None:
        """Take workers that end from the list."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline()
            pipe.zrem(global_key("workers:due"), *names)
            pipe.hdel(global_key("workers"), *names)
            pipe.delete(*(global_key(f"wake:{name}") for name in names))
            pipe.execute()

    def wait_worker(self, name: WorkerName, timeout_s: float, *more: WorkerName) -> bool:
        """Block until somebody wakes one of these workers; False when `timeout_s` passed without.

        Whoever is woken looks at everything, so it does not matter which of them it was.
        """
        first, *others = (global_key(f"wake:{each}") for each in (name, *more))
        return self._store.pop_wake(first, timeout_s, *others)

    def workers(self, *, ttl_ms: int = WORKER_TTL_MS) -> list[WorkerView]:
        """All workers that were heard of within the last hour, by name."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(global_key("workers"))
            pipe.zrange(global_key("workers:due"), 0, -1, withscores=True)
            time, records, due = pipe.execute()
        now_ms = _ms(time)
        views = []
        for name, deadline in due:
            if name in records:
                silent_ms = max(0, now_ms - int(deadline) + ttl_ms)
                liveness = _liveness(silent_ms, gone=silent_ms >= ttl_ms)
                views.append(WorkerView(decode(records[name], WorkerRecord), liveness, silent_ms))
        return sorted(views, key=lambda view: view.record.name)

    def sessions(self) -> list[SessionView]:
        """All sessions that nobody has judged gone yet, oldest first."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(global_key("sessions"))
            pipe.hgetall(global_key("sessions:heard"))
            pipe.zrange(global_key("sessions:due"), 0, -1, withscores=True)
            time, records, heard, due = pipe.execute()
        now_ms = _ms(time)
        views = []
        for name, deadline in due:
            if name in records:
                silent_ms = max(0, now_ms - int(heard.get(name, now_ms)))
                liveness = _liveness(silent_ms, gone=deadline <= now_ms)
                views.append(SessionView(decode(records[name], SessionRecord), liveness, silent_ms))
        return sorted(views, key=lambda view: view.record.started_ms)


def _live_crawl(crawl_id: bytes, row: Sequence[Any]) -> LiveCrawl:
    state, close_reason, why, members, wanted, judged_ms, at_risk, code_no, offer_no, session = row
    return LiveCrawl(
        crawl_id=CrawlId(crawl_id.decode()),
        state=CrawlState(state.decode()) if state else None,
        close_reason=close_reason.decode(),
        why=why.decode(),
        members=members,
        wanted=wanted,
        judged_ms=judged_ms,
        at_risk=bool(at_risk),
        code_version=code_no,
        offer_version=offer_no,
        session=SessionId(session.decode()),
    )


def _session_keys() -> tuple[str, ...]:
    """Records, deadlines, verdicts, last beats."""
    return tuple(map(global_key, ("sessions", "sessions:due", "sessions:gone", "sessions:heard")))


def _ms(time: tuple[int, int]) -> int:
    seconds, micros = time
    return seconds * 1000 + micros // 1000


def _liveness(silent_ms: int, *, gone: bool) -> Liveness:
    if gone:
        return Liveness.GONE
    return Liveness.LATE if silent_ms > _LATE_BEATS * BEAT_MS + BEAT_MS // 2 else Liveness.LIVE
