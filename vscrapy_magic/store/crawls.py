"""Owns the life of crawls: their states, who may move them, and what is known of them.

Used by senders (create, stop, list) and workers (wanted, fail, cancel, sweep).
"""

import enum
import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import (
    CrawlId,
    MemberToken,
    WorkerName,
    crawl_key,
    crawl_prefix,
    global_key,
)
from vscrapy_magic.store.messages import Bundle, CrawlSpec, CrawlState, Totals, decode, encode
from vscrapy_magic.store.pushed import pushed
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Shared

RETENTION_MS: Final = 24 * 3600 * 1000  # half of how long source is kept after its last use
STOPPED_BY_USER: Final = "shutdown"  # close reason, as Scrapy says after an interrupt
_WAKE_TTL_MS: Final = 60_000  # a worker that was not there has nothing to wake up for
_ID_BYTES: Final = 4  # 8 hex digits: short enough to type, and unique among kept crawls

S = CrawlState
FINAL_STATES: Final = frozenset(
    {S.FINISHED, S.STOPPED, S.FAILED, S.CANCELLED, S.LOST, S.STORE_ROLLED_BACK}
)
ACTIVE_STATES: Final = frozenset({S.QUEUED, S.STARTING, S.RUNNING, S.WAITING})


class Mover(enum.StrEnum):
    """Who moves a crawl to another state."""

    CHILD = "child"  # a step, join or leave
    SENDER = "sender"
    WORKER = "worker"  # a supervisor


# to -> (from, who). Moves of children happen inside their own scripts (`lua/members.lua`: settle).
MOVES: Final[dict[CrawlState, tuple[frozenset[CrawlState], frozenset[Mover]]]] = {
    S.STARTING: (frozenset({S.QUEUED}), frozenset({Mover.CHILD})),
    S.RUNNING: (frozenset({S.STARTING, S.WAITING}), frozenset({Mover.CHILD})),
    S.WAITING: (frozenset({S.STARTING, S.RUNNING}), frozenset({Mover.CHILD, Mover.WORKER})),
    S.STOPPING: (ACTIVE_STATES, frozenset({Mover.CHILD, Mover.SENDER, Mover.WORKER})),
    S.CLOSING: (ACTIVE_STATES | {S.STOPPING}, frozenset({Mover.CHILD})),
    S.FINISHED: (frozenset({S.CLOSING}), frozenset({Mover.CHILD})),
    S.STOPPED: (ACTIVE_STATES | {S.STOPPING, S.CLOSING}, frozenset({Mover.CHILD, Mover.SENDER})),
    S.FAILED: (ACTIVE_STATES | {S.STOPPING, S.CLOSING}, frozenset({Mover.WORKER})),
    S.CANCELLED: (
        ACTIVE_STATES | {S.STOPPING, S.CLOSING},
        frozenset({Mover.SENDER, Mover.WORKER}),
    ),
    S.LOST: (ACTIVE_STATES | {S.STOPPING, S.CLOSING}, frozenset({Mover.SENDER})),
    S.STORE_ROLLED_BACK: (
        ACTIVE_STATES | {S.STOPPING, S.CLOSING},
        frozenset({Mover.CHILD, Mover.SENDER}),
    ),
}


class MemberView(msgspec.Struct, frozen=True):
    """One child of a crawl."""

    token: MemberToken
    worker: WorkerName


class CrawlView(msgspec.Struct, frozen=True):
    """What is known of one crawl at one moment.

    Attributes:
        why: what a waiting crawl waits for, or why one has failed.
        since_ms: when it came to its state, or began to wait for what it waits for.
        control: version of its settings; moved by each change that a user makes.
        workers_max: at most so many workers, as of now; 0 means all.
        limited_by: the setting that keeps running workers from doing more, and where:
            `DOWNLOAD_DELAY = 1 on example.com`; empty when none does.
    """

    crawl_id: CrawlId
    spec: CrawlSpec
    state: CrawlState
    why: str
    close_reason: str
    totals: Totals
    members: tuple[MemberView, ...]
    created_ms: int
    started_ms: int
    ended_ms: int
    since_ms: int = 0
    control: int = 1
    workers_max: int = 0
    limited_by: str = ""

    @property
    def over(self) -> bool:
        """Whether the crawl is in a final state."""
        return self.state in FINAL_STATES

    def __repr__(self) -> str:
        return f"<CrawlView {self.crawl_id} {self.spec.spider} {self.state}>"


def new_crawl_id() -> CrawlId:
    """An id that no other crawl has."""
    return CrawlId(secrets.token_hex(_ID_BYTES))


_VIEW_FIELDS: Final = (
    *("spec", "state", "why", "close_reason", "limited"),
    *("created_ms", "started_ms", "ended_ms", "state_ms", "control", "workers"),
    *("items", "pages", "errors", "failures", "queued", "leased"),
)


class Crawls:
    """All crawls of one Redis; thread-safe, every call blocks for a round trip or two."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, spec: CrawlSpec) -> None:
        """Order a crawl; workers begin at once.

        Raises:
            StateError: there is a crawl of this id already.
        """
        limits = spec.limits
        fields: list[bytes | str | int] = [
            *("spec", encode(spec), "session", spec.session or "", "workers", spec.workers),
            *("lifo", int(spec.lifo), "keep_open", int(spec.keep_open)),
            *("limit_items", limits.items, "limit_pages", limits.pages),
            *("limit_errors", limits.errors, "limit_timeout_ms", limits.timeout_ms),
            *("out_max", spec.out_bytes_max),
        ]
        keys = (crawl_prefix(spec.crawl_id), global_key("crawls"), global_key("crawls:live"))
        reply = self._store.call(load_script("create"), keys, [spec.crawl_id, *fields])
        if reply[0] != b"ok":
            raise StateError(f"crawl {spec.crawl_id} exists already; take another id")
        self.wake_workers()

    def view(self, crawl_id: CrawlId) -> CrawlView:
        """One crawl.

        Raises:
            CrawlNotFoundError: never there, or past its retention.
        """
        found = self._views([crawl_id])
        if not found:
            raise CrawlNotFoundError(
                f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those there"
            )
        return found[0]

    def list_all(self) -> list[CrawlView]:
        """Every crawl that is kept, newest first."""
        key = global_key("crawls")
        with self._store.errors_wrapped():
            ids = [raw.decode() for raw in self._store.client.zrevrange(key, 0, -1)]
        views = self._views(ids)
        forgotten = set(ids) - {view.crawl_id for view in views}
        if forgotten:
            with self._store.errors_wrapped():
                self._store.client.zrem(key, *forgotten)
        return views

    def wanted(self) -> list[CrawlView]:
        """Crawls that are not over, oldest first."""
        with self._store.errors_wrapped():
            ids = self._store.client.zrange(global_key("crawls:live"), 0, -1)
        return [view for view in self._views([raw.decode() for raw in ids]) if not view.over]

    def stop(self, crawl_id: CrawlId, *, reason: str = STOPPED_BY_USER) -> CrawlState:
        """Send no further request, finish what is in flight, then end as `stopped`."""
        return self.move(crawl_id, S.STOPPING, Mover.SENDER, final=S.STOPPED, reason=reason)

    def kill(self, crawl_id: CrawlId, *, reason: str = "killed") -> CrawlState:
        """End as `stopped` at once; what is in flight is not committed any more."""
        return self.move(crawl_id, S.STOPPED, Mover.SENDER, reason=reason)

    def cancel(self, crawl_id: CrawlId, mover: Mover, *, why: str) -> CrawlState:
        """End as `cancelled` at once: the sender is gone."""
        return self.move(crawl_id, S.CANCELLED, mover, reason="cancelled", why=why)

    def finish_failed(self, crawl_id: CrawlId, reason: str) -> CrawlState:
        """End as `failed`: the spider cannot run anywhere."""
        return self.move(crawl_id, S.FAILED, Mover.WORKER, reason="failed", why=reason)

    def move(
        self,
        crawl_id: CrawlId,
        to: CrawlState,
        mover: Mover,
        *,
        final: CrawlState | None = None,
        reason: str = "",
        why: str = "",
    ) -> CrawlState:
        """Move a crawl to another state, if `MOVES` has this move, and wake who must know.

        Returns:
            The state afterwards; the old one when the crawl was over already.

        Raises:
            CrawlNotFoundError: never there, or past its retention.
            StateError: this mover may not do that.
        """
        allowed, movers = MOVES[to]
        if mover not in movers:
            raise StateError(f"crawl {crawl_id}: a {mover} may not move it to {to}")
        reply = self._store.call(
            load_script("move"),
            (crawl_prefix(crawl_id),),
            [to, final or "", reason, why, *sorted(allowed)],
        )
        if reply[0] == b"unknown":
            raise CrawlNotFoundError(
                f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those there"
            )
        if reply[0] == b"refused":
            return CrawlState(reply[1].decode())
        if reply[1] != reply[2]:
            self.wake_workers()
        state = CrawlState(reply[2].decode())
        if state in FINAL_STATES:
            self.sweep(crawl_id)
        return state

    def push(
        self, crawl_id: CrawlId, urls: Sequence[str], *, callback: str = "", priority: int = 0
    ) -> int:
        """Add URLs to a crawl that is going on, as its start URLs: visited again if need be.

        Args:
            callback: name of a method of the spider; empty for `parse`.

        Returns:
            How many were queued.

        Raises:
            ConfigError: one of them is no URL, and is named; none was queued.
            StateError: the crawl is over, or about to end.
        """
        requests = [pushed(url, callback=callback, priority=priority) for url in urls]
        return Frontier(self._store, crawl_id).push(requests)

    def explain(self, crawl_id: CrawlId, state: CrawlState, why: str) -> None:
        """Say what a crawl waits for, as long as it is in this state; wakes nobody."""
        args = [state, "", "", why, state]
        self._store.call(load_script("move"), (crawl_prefix(crawl_id),), args)

    def sweep(self, crawl_id: CrawlId, *, retention_ms: int | None = None) -> bool:
        """Remove what an ended crawl needs no longer; False when it is not over. Idempotent.

        Args:
            retention_ms: of what it brought; None means the shared default.
        """
        if retention_ms is None:
            retention_ms = Shared(self._store).read().retention_ms
        keys = (crawl_prefix(crawl_id), global_key("crawls:live"))
        done = 0
        while done == 0:
            done = self._store.call(load_script("sweep"), keys, [crawl_id, retention_ms])
        return done == 1

    def stats(self, crawl_id: CrawlId) -> dict[str, bytes]:
        """Merged stats: decimal numbers, or `=` and msgpack."""
        with self._store.errors_wrapped():
            raw = self._store.client.hgetall(crawl_key(crawl_id, "stats"))
        return {key.decode(): value for key, value in raw.items()}

    def put_bundle(self, bundle: Bundle, digest: str) -> None:
        """Keep shipped source under its digest; sent once, kept a day after its last use."""
        key = global_key(f"bundle:{digest}")
        with self._store.errors_wrapped():
            if not self._store.client.pexpire(key, 2 * RETENTION_MS):
                self._store.client.set(key, encode(bundle), px=2 * RETENTION_MS)

    def bundle(self, digest: str) -> Bundle:
        """Shipped source by its digest.

        Raises:
            CrawlNotFoundError: it is not kept any more.
        """
        with self._store.errors_wrapped():
            data = self._store.client.get(global_key(f"bundle:{digest}"))
        if data is None:
            raise CrawlNotFoundError(f"bundle {digest[:12]}: not on {self._store.address} any more")
        return decode(data, Bundle)

    def wake_workers(self) -> None:
        """Let all workers look at once; one that misses this looks with its next beat."""
        with self._store.errors_wrapped():
            names = self._store.client.zrange(global_key("workers:due"), 0, -1)
            pipe = self._store.client.pipeline(transaction=False)
            for name in names:
                key = global_key(f"wake:{name.decode()}")
                pipe.lpush(key, "1")
                pipe.ltrim(key, 0, 0)
                pipe.pexpire(key, _WAKE_TTL_MS)
            pipe.execute()

    def _views(self, ids: Sequence[str]) -> list[CrawlView]:
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for crawl_id in ids:
                pipe.hmget(crawl_key(CrawlId(crawl_id), "meta"), *_VIEW_FIELDS)
                pipe.zrange(crawl_key(CrawlId(crawl_id), "members"), 0, -1)
            rows = pipe.execute()
            tokens = [(i, t.decode()) for i in range(len(ids)) for t in rows[2 * i + 1]]
            pipe = self._store.client.pipeline(transaction=False)
            for i, token in tokens:
                pipe.hget(crawl_key(CrawlId(ids[i]), f"m:{token}"), "worker")
            workers = pipe.execute()
        members: list[list[MemberView]] = [[] for _ in ids]
        for (i, token), worker in zip(tokens, workers, strict=True):
            name = WorkerName((worker or b"").decode())
            members[i].append(MemberView(MemberToken(token), name))
        return [
            _view(CrawlId(crawl_id), rows[2 * i], members[i])
            for i, crawl_id in enumerate(ids)
            if rows[2 * i][0] is not None
        ]


def _view(crawl_id: CrawlId, row: Sequence[Any], members: Sequence[MemberView]) -> CrawlView:
    spec, state, why, close_reason, limited = row[:5]
    numbers = [int(value or 0) for value in row[5:]]
    created_ms, started_ms, ended_ms, since_ms, control, workers, *totals = numbers
    return CrawlView(
        crawl_id=crawl_id,
        spec=decode(spec, CrawlSpec),
        state=CrawlState(state.decode()),
        why=(why or b"").decode(),
        close_reason=(close_reason or b"").decode(),
        totals=Totals(*totals),
        members=tuple(members),
        created_ms=created_ms,
        started_ms=started_ms,
        ended_ms=ended_ms,
        since_ms=since_ms,
        control=control,
        workers_max=workers,
        limited_by=(limited or b"").decode() if state.decode() == S.RUNNING else "",
    )
