"""Owns who is there: workers and sessions, their beats, and who is judged gone.

Used by supervisors and by the beacons of sessions. A deadline is a number that scripts compare with
the server's clock (`lua/beat.lua`); whoever beats also judges, so no process has to be the master.
"""

import enum
from typing import Final

import msgspec

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, SessionId, WorkerName, global_key
from vscrapy_magic.store.messages import SessionRecord, WorkerRecord, decode, encode
from vscrapy_magic.store.scripts import load_script

WORKER_TTL_MS: Final = 10_000  # a worker that was not heard of for so long is gone
SESSION_TTL_MS: Final = 10_000  # default; a session not heard of for so long loses its crawls
BEAT_MS: Final = 2000  # of idle workers and sessions: two of them fit well into a TTL
FORGET_MS: Final = 3600_000  # how long gone workers and sessions stay listed
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


class Beat(msgspec.Struct, frozen=True):
    """What one learns with a beat.

    Attributes:
        alive: False when this session was judged gone before; it never comes back.
        gone_sessions: sessions whose crawls are to be cancelled.
        live_crawls: crawls that are not over, or not swept yet.
    """

    alive: bool
    gone_sessions: frozenset[SessionId]
    live_crawls: tuple[CrawlId, ...]


class Presence:
    """Workers and sessions on one Redis; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def beat_worker(self, record: WorkerRecord, *, ttl_ms: int = WORKER_TTL_MS) -> Beat:
        """Say that a worker lives; judge sessions."""
        return self._beat("workers", record.name, encode(record), ttl_ms)

    def beat_session(self, record: SessionRecord, *, ttl_ms: int = SESSION_TTL_MS) -> Beat:
        """Say that a session lives; judge sessions."""
        return self._beat("sessions", record.session, encode(record), ttl_ms)

    def _beat(self, kind: str, name: str, record: bytes, ttl_ms: int) -> Beat:
        keys = (
            *(global_key(kind), global_key(f"{kind}:due"), global_key("sessions:due")),
            *(global_key("sessions:gone"), global_key("judged"), global_key("crawls:live")),
        )
        args: list[bytes | str | int] = [
            name,
            record,
            ttl_ms,
            BEAT_MS,
            FORGET_MS,
            int(kind == "sessions"),
        ]
        alive, gone, live = self._store.call(load_script("beat"), keys, args)
        return Beat(
            alive=bool(alive),
            gone_sessions=frozenset(SessionId(raw.decode()) for raw in gone),
            live_crawls=tuple(CrawlId(raw.decode()) for raw in live),
        )

    def end_session(self, session: SessionId) -> None:
        """Judge a session gone now: its process has ended. Its crawls are cancelled by workers."""
        with self._store.errors_wrapped():
            seconds, _ = self._store.client.time()
            pipe = self._store.client.pipeline()
            pipe.zrem(global_key("sessions:due"), session)
            pipe.hdel(global_key("sessions"), session)
            pipe.zadd(global_key("sessions:gone"), {session: seconds * 1000})
            pipe.execute()

    def remove_worker(self, name: WorkerName) -> None:
        """Take a worker that ends from the list."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline()
            pipe.zrem(global_key("workers:due"), name)
            pipe.hdel(global_key("workers"), name)
            pipe.delete(global_key(f"wake:{name}"))
            pipe.execute()

    def wait_worker(self, name: WorkerName, timeout_s: float) -> bool:
        """Block until somebody wakes this worker; False when `timeout_s` passed without."""
        return self._store.pop_wake(global_key(f"wake:{name}"), timeout_s)

    def workers(self, *, ttl_ms: int = WORKER_TTL_MS) -> list[WorkerView]:
        """All workers that were heard of within the last hour, by name."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(global_key("workers"))
            pipe.zrange(global_key("workers:due"), 0, -1, withscores=True)
            (seconds, micros), records, due = pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        views = []
        for name, deadline in due:
            if name in records:
                silent_ms = max(0, now_ms - int(deadline) + ttl_ms)
                record = decode(records[name], WorkerRecord)
                views.append(WorkerView(record, _liveness(silent_ms, ttl_ms), silent_ms))
        return sorted(views, key=lambda view: view.record.name)


def _liveness(silent_ms: int, ttl_ms: int) -> Liveness:
    if silent_ms >= ttl_ms:
        return Liveness.GONE
    return Liveness.LATE if silent_ms > _LATE_BEATS * BEAT_MS + BEAT_MS // 2 else Liveness.LIVE
