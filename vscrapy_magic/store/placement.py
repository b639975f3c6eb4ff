"""Owns how a crawl is placed: its source and its order reach the server, and workers hear of it.

Used by senders. A user who runs a cell waits for each round trip, so placing takes two, and a third
for source that is new: one asks for all that must be known before; the last creates the crawl,
wakes the workers and brings the first view.
"""

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import NoScriptError, RedisError

from vscrapy_magic.errors import StateError, StoreUnreachableError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import WorkerName, crawl_prefix, global_key
from vscrapy_magic.store.messages import Bundle, CrawlSpec, SessionRecord, encode
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Defaults, Shared
from vscrapy_magic.store.views import CrawlView, Views

BUNDLE_TTL_MS: Final = (
    2 * 24 * 3600 * 1000
)  # of source since somebody had it in use; twice the retention
CREATE_WITHIN_S: Final = 15.0  # tries of an order whose answer did not come
_RETRY_S: Final = 0.5  # between two of them
SHOWN_TO: Final = 16  # workers are woken for a new crawl; it calls others when it wants more
_WAKE_TTL_MS: Final = 60_000  # a worker that was not there has nothing to wake up for


class Ground(msgspec.Struct, frozen=True):
    """What is known before a crawl is placed.

    Attributes:
        workers: to be woken, some of those that were heard of last; others look by themselves.
        has_bundle: whether the source is there, and kept for long enough.
    """

    defaults: Defaults
    workers: tuple[WorkerName, ...]
    has_bundle: bool


class Placement:
    """Places crawls on one server; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shared = Shared(store)
        self._views = Views(store)

    def survey(self, digest: str) -> Ground:
        """What must be known before a crawl with this source; blocks for one round trip."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            pipe.pexpire(bundle_key(digest), BUNDLE_TTL_MS)
            self._shared.ask(pipe)
            ask_workers(pipe)
            has_bundle, values, names = pipe.execute()
        workers = found_workers(names)
        if len(workers) > SHOWN_TO:  # by deadline: those that are gone come first
            workers = tuple(random.sample(workers[-max(SHOWN_TO, len(workers) // 2) :], SHOWN_TO))
        return Ground(self._shared.found(values), workers, bool(has_bundle))

    def create(
        self,
        spec: CrawlSpec,
        ground: Ground,
        bundle: Bundle,
        *,
        collector: SessionRecord | None = None,
    ) -> CrawlView:
        """Order a crawl; workers begin at once. Blocks for a round trip, or two for new source.

        An order whose answer does not come is sent again for `CREATE_WITHIN_S`: the crawl's id
        makes it one crawl, whichever of them arrived.

        Args:
            collector: the session that collects its outputs from the beginning; None: who comes.

        Returns:
            The crawl as it is then.

        Raises:
            StateError: there is a crawl of this id already.
            StoreUnreachableError: no answer came; whether the crawl begins is not known, and
                `Crawls.forgo` sees that it does not.
        """
        if not ground.has_bundle:  # before the crawl is there: a child may want it at once
            with self._store.errors_wrapped():
                key = bundle_key(spec.bundle)
                self._store.client.set(key, encode(bundle), px=BUNDLE_TTL_MS)
        until, is_repeated = time.monotonic() + CREATE_WITHIN_S, False
        while True:
            try:
                return self._create(spec, ground, collector, is_repeated=is_repeated)
            except StoreUnreachableError:
                if time.monotonic() > until:
                    raise
                is_repeated = True
                time.sleep(_RETRY_S)

    def _create(
        self,
        spec: CrawlSpec,
        ground: Ground,
        collector: SessionRecord | None,
        *,
        is_repeated: bool,
    ) -> CrawlView:
        args = _create_args(spec, collector)
        replies = self._send(spec, ground, args, is_known=True)
        if isinstance(replies[0], NoScriptError):  # a server that is new, or was restarted
            replies = self._send(spec, ground, args, is_known=False)
        with self._store.errors_wrapped():
            for error in (reply for reply in replies if isinstance(reply, RedisError)):
                raise error
        created, *_, row, members = replies
        if created[0] == b"ok" or (is_repeated and row[0] == encode(spec)):
            return self._views.found(spec.crawl_id, row, members)
        raise StateError(f"crawl {spec.crawl_id} exists already; take another id")

    def _send(
        self,
        spec: CrawlSpec,
        ground: Ground,
        args: Sequence[bytes | str | int],
        *,
        is_known: bool,
    ) -> Sequence[Any]:
        """Replies: of the script, of each wake-up, and the two of the view."""
        script, keys = load_script("create"), _create_keys(spec)
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            if is_known:
                pipe.evalsha(script.sha1, len(keys), *keys, *args)
            else:
                pipe.eval(script.source, len(keys), *keys, *args)
            ask_wakes(pipe, ground.workers)
            self._views.ask(pipe, spec.crawl_id)
            replies: Sequence[Any] = pipe.execute(raise_on_error=False)
        return replies


def bundle_key(digest: str) -> str:
    """Where shipped source is kept."""
    return global_key(f"bundle:{digest}")


def ask_workers(pipe: Any) -> None:
    """Add the question for the workers that may have to be woken; `found_workers` reads it."""
    pipe.zrange(global_key("workers:due"), 0, -1)


def found_workers(names: Iterable[bytes]) -> tuple[WorkerName, ...]:
    """The workers in the reply."""
    return tuple(WorkerName(name.decode()) for name in names)


def ask_wakes(pipe: Any, workers: Iterable[WorkerName]) -> None:
    """Add wake-ups to a pipeline; a worker that misses one looks with its next beat."""
    for worker in workers:
        key = global_key(f"wake:{worker}")
        pipe.lpush(key, "1")
        pipe.ltrim(key, 0, 0)
        pipe.pexpire(key, _WAKE_TTL_MS)


def _create_keys(spec: CrawlSpec) -> tuple[str, str, str]:
    """KEYS of `lua/create.lua`."""
    return crawl_prefix(spec.crawl_id), global_key("crawls"), global_key("crawls:live")


def _create_args(spec: CrawlSpec, collector: SessionRecord | None) -> list[bytes | str | int]:
    """ARGV of `lua/create.lua`."""
    limits = spec.limits
    return [
        spec.crawl_id,
        *((collector.session, encode(collector)) if collector is not None else ("", "")),
        *("spec", encode(spec), "session", spec.session or "", "workers", spec.workers),
        *("lifo", int(spec.lifo), "keep_open", int(spec.keep_open)),
        *("limit_items", limits.items, "limit_pages", limits.pages),
        *("limit_errors", limits.errors, "limit_timeout_ms", limits.timeout_ms),
        *("limit_no_item_ms", limits.no_item_ms, "limit_no_item_pages", limits.no_item_pages),
        *("out_max", spec.out_bytes_max, "rec_max", spec.record_bytes),
    ]
