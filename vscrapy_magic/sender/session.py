"""Owns a session: the life of one kernel or command, its connection, its heartbeat and its crawls.

Runs in the sender's process. A crawl belongs to the session that placed it: when the session ends,
however it ends, its crawls are cancelled, and no others. The heartbeat is a process of its own
(`beacon.py`), because a thread would be late whenever user code holds the interpreter.
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from vscrapy_magic import config
from vscrapy_magic.errors import ConfigError, StateError, StoreError, StoreUnreachableError
from vscrapy_magic.sender.beacon import Beacon
from vscrapy_magic.sender.classes import class_order, class_source
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.sender.collecting import Collecting
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.feeds import Feeds
from vscrapy_magic.sender.follow import Listener
from vscrapy_magic.sender.forgone import Forgone
from vscrapy_magic.sender.kept import open_complete
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order, place
from vscrapy_magic.sender.retrying import Retried
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.sender.spools import prune, spool_root
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.environment import environment_id
from vscrapy_magic.store.keys import CrawlId, SessionId
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlSpec, SessionRecord
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.shared import Shared
from vscrapy_magic.store.views import CrawlView

logger = logging.getLogger(__name__)

TERMINAL: Final = "terminal"  # a kind of sender: it shows what it is told by itself
_SESSION_BYTES: Final = 8
_LOOK_S: Final = 1.0  # between two looks at the heartbeat's process


class Session:
    """An open session; a context manager, used from any thread.

    Attributes:
        store: the connection, for what concerns all crawls of the server.
        is_local: whether this is the user's own cluster on this machine.
    """

    def __init__(
        self, store: Store, *, kind: str, is_local: bool = False, ttl_ms: int | None = None
    ) -> None:
        """Begin; `connect` is what callers want."""
        ttl_ms = ttl_ms or Shared(store).read().session_ttl_ms
        self.store: Final = store
        self.is_local: Final = is_local
        self.record: Final = SessionRecord(
            session=SessionId(secrets.token_hex(_SESSION_BYTES)),
            host=socket.gethostname(),
            pid=os.getpid(),
            kind=kind,
            started_ms=int(time.time() * 1000),
        )
        self._ttl_ms = ttl_ms
        self._presence = Presence(store)
        self._crawls = Crawls(store)
        self._placement = Placement(store)
        self._forgone = Forgone(store)
        self._followed: dict[CrawlId, Crawl] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._root = spool_root()
        prune(self._root)
        self._presence.beat_session(self.record, ttl_ms=ttl_ms)
        self._beacon = Beacon(store.url, self.record, ttl_ms=ttl_ms)
        self._looked = time.monotonic()

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        kind: str = "kernel",
        workers: int | None = None,
        ttl_ms: int | None = None,
    ) -> Self:
        """An open session on the server at `url`.

        Blocks until the server has answered; the local cluster is started when it does not run.

        Args:
            url: None means `VSCRAPY_REDIS_URL`, then the configuration file, then the local
                cluster.
            kind: what is shown as the sender: `kernel` or `terminal`.
            workers: of the local cluster, when it has to be started.
            ttl_ms: silence after which the session's crawls are cancelled; None means the default
                that is shared by all senders of the server.

        Raises:
            ConfigError: the address cannot be used.
            StoreError: the server cannot be used; the message says why.
        """
        url = url or config.redis_url()
        is_local = url is None or (
            config.socket_path(url) is not None and url == LocalCluster.url()
        )
        store = Store.connect(url or LocalCluster.ensure(workers))
        try:
            return cls(store, kind=kind, is_local=is_local, ttl_ms=ttl_ms)
        except BaseException:
            store.close()
            raise

    def crawl(
        self,
        spider: type,
        *,
        args: Mapping[str, object] | None = None,
        settings: Mapping[str, Any] | None = None,
        workers: int | None = None,
        keep_open: bool = False,
        detach: bool = False,
        record: bool = False,
    ) -> Crawl:
        """Start a crawl with a spider class of a notebook, a script or a module; returns at once.

        The class travels as source with what it uses; settings of a project do not, unless they are
        given here. Feeds (`FEEDS` of the spider or in `settings`) are written here, and are
        complete when `wait` returns.

        Args:
            args: of the spider; they arrive as text, as those of `-a` do.
            settings: by name; they win over those of the spider. Classes may be given as such.
            workers: at most so many; None: all, or one when the spider keeps state between pages.
            keep_open: wait for `push` when there is nothing left to do.
            detach: the crawl goes on when this session ends; then who attaches to it, as this user
                on this machine, writes its feeds on.
            record: keep all pages here, see `Crawl.pages`.

        Raises:
            ConfigError: it cannot be ordered so.
            CannotShipError: something that the spider uses exists in this process only.
            StateError: the session is over: closed, or judged gone by the others.
        """
        self.check()
        if not isinstance(spider, type):
            raise ConfigError(f"{spider!r} is no class: name the spider's class itself")
        if workers is not None and workers < 1:
            raise ConfigError(f"workers={workers}: at least one is needed")
        texts = {name: str(value) for name, value in (args or {}).items()}
        options = CrawlOptions(args=texts, workers=workers, keep_open=keep_open, record=record)
        order = class_order(options, spider, *class_source(spider), settings or {})
        for note in order.notes:
            logger.warning("%s", note)
        if order.shipped.pinned and workers is None:
            logger.warning("%s: on one worker; workers=N overrides", order.shipped.pinned)
        crawl = self.place(order, detach=detach)
        crawl.listen(_Warner(crawl))
        return crawl

    def place(
        self,
        order: Order,
        *,
        detach: bool = False,
        collect: bool = True,
        listener: Listener | None = None,
    ) -> Crawl:
        """Ship the source and start the crawl; returns at once.

        Args:
            detach: the crawl goes on when this session ends.
            collect: False leaves what a detached crawl brings to those who attach to it: for a
                session that ends right away.
            listener: hears of the crawl from its very beginning.

        Raises:
            StateError: the session is over: closed, or judged gone by the others.
            ConfigError: the order cannot be placed.
        """
        self.check()
        kept: list[tuple[Spool, Feeds | None]] = []
        owner = None if detach else self.record.session

        def keep(spec: CrawlSpec) -> None:
            spool = Spool(self._root, spec.crawl_id, spec)
            bundle = order.shipped.bundle
            spool.keep_code(spec.code_version, bundle)
            if order.origin is not None:
                spool.keep_origin(order.origin)
            feeds = Feeds.keep(order.feeds, bundle, spool.folder) if order.feeds else None
            kept.append((spool, feeds))

        try:
            view = place(
                order,
                self._placement,
                owner,
                env=environment_id() if self.is_local else "",
                collector=self.record if collect else None,
                before=keep,
            )
        except BaseException as exc:  # an interrupt, too: nobody would follow the crawl
            for spool, _ in kept:
                spool.close()
                if isinstance(exc, StoreUnreachableError) or not isinstance(exc, Exception):
                    self._forgone.add(spool.crawl_id, is_bound=not detach)
            raise
        spool, feeds = kept[0]
        collecting = Collecting(self.store, spool, self.record, wanted=collect)
        collecting.own()
        return self._adopt(
            view, spool, feeds if collect else None, collecting=collecting, listener=listener
        )

    def attach(self, crawl_id: str, *, take: bool = False) -> Crawl:
        """Find a crawl again: one of this session, of an ended one, or a detached one.

        The spool is read first, so that this works when the server is long gone. One session
        collects a crawl at a time: while another does, this one watches, and takes its place when
        it is gone; `Crawl.notes` says so. What others have collected before stays with them.

        Feeds that were ordered with the crawl, by this user on this machine, are written on:
        complete when `wait` returns; of a crawl that is over and collected, when this returns.
        `Crawl.feeds` says what was done.

        Args:
            take: collect what is still to come here, whoever does so now.

        Raises:
            CrawlNotFoundError: neither the spool nor the server knows it.
        """
        known = CrawlId(crawl_id)
        with self._lock:
            followed = self._followed.get(known)
        if followed is not None:
            if take:
                followed.take()
            return followed
        kept = open_complete(crawl_id)
        if kept is not None:
            return kept
        view = self._crawls.view(known)
        spool = Spool(self._root, known, view.spec)
        collecting = Collecting(self.store, spool, self.record)
        try:
            collecting.begin(take=take)
        except BaseException:
            spool.close()
            raise
        feeds = Feeds.find(spool.folder) if collecting.claim is not None else None
        crawl = self._adopt(view, spool, feeds, collecting=collecting)
        if self.record.kind != TERMINAL:
            crawl.listen(_Warner(crawl))
        return crawl

    def _adopt(
        self,
        view: CrawlView,
        spool: Spool,
        feeds: Feeds | None,
        *,
        collecting: Collecting,
        listener: Listener | None = None,
    ) -> Crawl:
        crawl = Crawl(
            self.store,
            spool,
            view,
            collecting=collecting,
            feeds=feeds,
            home=self,
        )
        with self._lock:
            self._followed[view.crawl_id] = crawl
        if listener is not None:
            crawl.listen(listener)
        crawl.follow()
        return crawl

    def adopt(self, crawl: Crawl) -> None:
        """Count a crawl that is open again among those that end with this session."""
        with self._lock:
            self._followed[crawl.id] = crawl

    def retry(self, crawl_id: str, number: int | None = None) -> tuple[Crawl, Retried]:
        """Put failed requests of a crawl back, also of one that is over: see `Crawl.retry`.

        Raises:
            CrawlNotFoundError: the server does not know it any more.
            ConfigError, StateError: as `Crawl.retry`.
        """
        known = CrawlId(crawl_id)
        with self._lock:
            crawl = self._followed.get(known)
        if crawl is None:
            view = self._crawls.view(known)
            if view.over:
                crawl = Crawl(self.store, Spool(self._root, known, view.spec), view, home=self)
            else:
                crawl = self.attach(known)
        return crawl, crawl.retry(number)

    @property
    def crawls(self) -> tuple[Crawl, ...]:
        """Crawls that this session follows, in the order in which it began to."""
        with self._lock:
            return tuple(self._followed.values())

    def check(self) -> None:
        """See that the session may place crawls, and that its heartbeat runs.

        Raises:
            StateError: it may not; the message says what to do.
        """
        if self._closed:
            raise StateError("this session has been closed: connect again")
        verdict = self._beacon.verdict()
        if verdict:
            raise StateError(
                f"this session was taken for gone ({verdict}) and its crawls were cancelled: "
                "connect again"
            )
        self._keep_beating()

    def set_ttl(self, ttl_ms: int) -> None:
        """Change after how much silence this session is taken for gone, for all its crawls."""
        with self._lock:
            if ttl_ms == self._ttl_ms or self._closed:
                return
            self._ttl_ms = ttl_ms
            self._beacon.abandon()
        self._keep_beating()

    def pulse(self) -> None:
        """Look after the heartbeat once a second, while a crawl is followed."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._keep_beating()

    def _keep_beating(self) -> None:
        """Start the heartbeat anew when its process was killed."""
        with self._lock:
            if self._closed or self._beacon.alive() or self._beacon.verdict():
                return
            logger.info("The heartbeat of this session is started anew")
            self._beacon.abandon()  # its pipes
            with contextlib.suppress(StoreError):  # away: the new one tries on, and heals it
                self._presence.beat_session(self.record, ttl_ms=self._ttl_ms)
            self._beacon = Beacon(self.store.url, self.record, ttl_ms=self._ttl_ms)

    def close(self) -> None:
        """End the session: its crawls that still run are cancelled. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            followed = tuple(self._followed.values())
        self._beacon.close()
        for crawl in followed:
            crawl.close()
        self._forgone.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session {self.store.address}{' closed' if self._closed else ''}>"


class _Warner:
    """Warns of feeds that are not right, and of other collectors, where nobody else shows it."""

    def __init__(self, crawl: Crawl) -> None:
        self._crawl = crawl

    def lines(self, lines: Sequence[LogLine]) -> None:
        """Lines of workers are where they are asked for."""
        told = {text for level, text in self._crawl.notes if level >= logging.WARNING}
        for line in lines:
            if line.text in told:
                logger.warning("%s", line.text)

    def view(self, view: CrawlView) -> None:
        """Not of interest; a listener must have it."""

    def ended(self, _view: CrawlView) -> None:
        for note in self._crawl.feed_notes:
            if note.bad:
                logger.warning("Crawl %s: %s", self._crawl.id, note.text)


_latest: Final[list[Crawl]] = []  # one at most


def latest() -> Crawl | None:
    """The crawl that code of this process has found again last; None: none yet."""
    return _latest[-1] if _latest else None


def attach(crawl_id: str, *, take: bool = False) -> Crawl:
    """Find a crawl again; connects only when it is not kept here.

    The session that this takes lives as long as the process.

    Args:
        take: collect what is still to come here, whoever does so now.

    Raises:
        CrawlNotFoundError: neither the spool nor the server knows it.
    """
    found = open_complete(crawl_id)
    found = found or Session.connect(kind="python").attach(crawl_id, take=take)
    _latest[:] = [found]
    return found
