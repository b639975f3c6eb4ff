"""Owns the life of crawls: their states, who may move them, and what is known of them.

Used by senders (stop, list; `placement.py` creates) and workers (wanted, fail, cancel, sweep).
"""

import contextlib
import enum
import secrets
from collections.abc import Sequence
from typing import Final

from vscrapy_magic.errors import CrawlNotFoundError, StateError, StoreReadOnlyError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, WorkerName, crawl_key, crawl_prefix, global_key
from vscrapy_magic.store.messages import Bundle, CookieChange, CrawlSpec, CrawlState, decode
from vscrapy_magic.store.placement import ask_wakes, ask_workers, bundle_key, found_workers
from vscrapy_magic.store.pushed import pushed
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Shared
from vscrapy_magic.store.views import FINAL_STATES, CrawlView, Views

STOPPED_BY_USER: Final = "shutdown"  # close reason, as Scrapy says after an interrupt
_ID_BYTES: Final = 4  # short enough to type, and unique among kept crawls
ID_CHARS: Final = 2 * _ID_BYTES  # hexadecimal digits
_FORGO_MS: Final = 3600_000  # for so long an order that was given up cannot come any more

S = CrawlState
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


def new_crawl_id() -> CrawlId:
    """An id that no other crawl has."""
    return CrawlId(secrets.token_hex(_ID_BYTES))


class Crawls:
    """All crawls of one Redis; thread-safe, every call blocks for a round trip or two."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._views = Views(store)

    def view(self, crawl_id: CrawlId, *, named: bool = True) -> CrawlView:
        """One crawl.

        Args:
            named: whether the workers of its members are asked for; see `Views.all`.

        Raises:
            CrawlNotFoundError: never there, or past its retention.
        """
        found = self._views.all([crawl_id], named=named)
        if not found:
            raise self._views.unknown(crawl_id)
        return found[0]

    def list_all(self) -> list[CrawlView]:
        """Every crawl that is kept, newest first."""
        key = global_key("crawls")
        with self._store.errors_wrapped():
            ids = [raw.decode() for raw in self._store.client.zrevrange(key, 0, -1)]
        views = self._views.all(ids)
        forgotten = set(ids) - {view.crawl_id for view in views}
        if forgotten:
            with self._store.errors_wrapped():
                pipe = self._store.client.pipeline(transaction=False)
                for name in ("crawls", "crawls:due"):
                    pipe.zrem(global_key(name), *forgotten)
                pipe.execute()
        return views

    def wanted(self) -> list[CrawlView]:
        """Crawls that are not over, oldest first; the workers of their members are not named."""
        with self._store.errors_wrapped():
            ids = self._store.client.zrange(global_key("crawls:live"), 0, -1)
        views = self._views.all([raw.decode() for raw in ids], named=False)
        return [view for view in views if not view.over]

    def specs(self, ids: Sequence[CrawlId]) -> dict[CrawlId, CrawlSpec]:
        """How crawls were ordered, of those that are there; in one round trip."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for crawl_id in ids:
                pipe.hget(crawl_key(crawl_id, "meta"), "spec")
            found = pipe.execute()
        pairs = zip(ids, found, strict=True)
        return {crawl_id: decode(raw, CrawlSpec) for crawl_id, raw in pairs if raw is not None}

    def stop(self, crawl_id: CrawlId, *, reason: str = STOPPED_BY_USER) -> CrawlState:
        """Send no further request, finish what is in flight, then end as `stopped`."""
        return self.move(crawl_id, S.STOPPING, Mover.SENDER, final=S.STOPPED, reason=reason)

    def kill(self, crawl_id: CrawlId, *, reason: str = "killed") -> CrawlState:
        """End as `stopped` at once; what is in flight is not committed any more."""
        return self.move(crawl_id, S.STOPPED, Mover.SENDER, reason=reason)

    def cancel(self, crawl_id: CrawlId, mover: Mover, *, why: str) -> CrawlState:
        """End as `cancelled` at once: the sender is gone."""
        return self.move(crawl_id, S.CANCELLED, mover, reason="cancelled", why=why)

    def forgo(self, crawl_id: CrawlId, *, why: str) -> None:
        """See that a crawl does not run of which it is not known whether it has been created.

        One that is there is cancelled, and one that is still on its way cannot come any more.
        Idempotent.
        """
        keys = (crawl_prefix(crawl_id),)
        if self._store.call(load_script("forgo"), keys, [_FORGO_MS]):
            self.cancel(crawl_id, Mover.SENDER, why=why)

    def finish_failed(self, crawl_id: CrawlId, reason: str) -> CrawlState:
        """End as `failed`: the spider cannot run anywhere."""
        return self.move(crawl_id, S.FAILED, Mover.WORKER, reason="failed", why=reason)

    def refuse(self, crawl_id: CrawlId, worker: WorkerName, why: str) -> set[WorkerName]:
        """Note that a worker cannot run a crawl; the names of all that cannot."""
        keys = [crawl_prefix(crawl_id)]
        names = self._store.call(load_script("refuse"), keys, [worker, why])
        return {WorkerName(name.decode()) for name in names}

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
            raise self._views.unknown(crawl_id)
        if reply[0] == b"refused":
            return CrawlState(reply[1].decode())
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
        keys = (crawl_prefix(crawl_id), global_key("crawls:live"), global_key("crawls:due"))
        done = 0
        while done == 0:
            done = self._store.call(load_script("sweep"), keys, [crawl_id, retention_ms])
        return done == 1

    def stats(self, crawl_id: CrawlId) -> dict[str, bytes]:
        """Merged stats: decimal numbers, or `=` and msgpack."""
        with self._store.errors_wrapped():
            raw = self._store.client.hgetall(crawl_key(crawl_id, "stats"))
        return {key.decode(): value for key, value in raw.items()}

    def cookies(self, crawl_id: CrawlId) -> tuple[CookieChange, ...]:
        """Cookies of a running crawl; none of one that is over."""
        with self._store.errors_wrapped():
            raw = self._store.client.hgetall(crawl_key(crawl_id, "cookies"))
        return tuple(CookieChange(key.decode(), value) for key, value in raw.items())

    def bundle(self, digest: str) -> Bundle:
        """Shipped source by its digest.

        Raises:
            CrawlNotFoundError: it is not kept any more.
        """
        with self._store.errors_wrapped():
            data = self._store.client.get(bundle_key(digest))
        if data is None:
            raise CrawlNotFoundError(f"bundle {digest[:12]}: not on {self._store.address} any more")
        return decode(data, Bundle)

    def wake_workers(self) -> None:
        """Let all workers look at once; one that misses this looks with its next beat.

        On a full server they all miss it, and crawls can be stopped all the same.
        """
        with contextlib.suppress(StoreReadOnlyError), self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            ask_workers(pipe)
            workers = found_workers(pipe.execute()[0])
            pipe = self._store.client.pipeline(transaction=False)
            ask_wakes(pipe, workers)
            pipe.execute()
