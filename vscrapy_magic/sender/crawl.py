"""Owns a crawl as its user holds it: what it is doing, how it is changed and stopped.

Runs in the sender's process; every method may be called from any thread.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from vscrapy_magic.errors import StateError, StoreError
from vscrapy_magic.sender.account import describe, time_stats
from vscrapy_magic.sender.attending import Keyboard, attend
from vscrapy_magic.sender.brought import Brought
from vscrapy_magic.sender.collecting import Collecting, described
from vscrapy_magic.sender.feeds import Feeds
from vscrapy_magic.sender.follow import Follower, Listener, sender_line
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.order import Order
from vscrapy_magic.sender.patching import Patched, patch, spider_order
from vscrapy_magic.sender.retrying import Choice, Retried
from vscrapy_magic.sender.spool import CrawlEnd, Spool
from vscrapy_magic.store.breakpoints import Halt
from vscrapy_magic.store.codes import Codes
from vscrapy_magic.store.collectors import Kept
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.feed_journal import Note
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import Bundle, CrawlState, SessionRecord
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.retries import Retries
from vscrapy_magic.store.values import read_stat
from vscrapy_magic.store.views import CrawlView

logger = logging.getLogger(__name__)


class Home(Protocol):
    """The session that a crawl belongs to, or is watched by."""

    @property
    def record(self) -> SessionRecord:
        """How it presents itself."""

    def check(self) -> None:
        """Raises a `StateError` when it cannot own crawls."""

    def pulse(self) -> None:
        """To be called a few times a second, while a crawl is followed."""

    def adopt(self, crawl: "Crawl") -> None:
        """A crawl is followed again."""


class Crawl(Brought):
    """One crawl. Made by a session: `session.crawl(...)`, `session.attach(id)`."""

    def __init__(
        self,
        store: Store | None,
        spool: Spool,
        view: CrawlView,
        *,
        collecting: Collecting | None = None,
        feeds: Feeds | None = None,
        home: Home | None = None,
    ) -> None:
        self._home = home
        self._store = store
        super().__init__(spool, view.spec.spider)
        self._view = view
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._follower: Follower | None = None
        self._feeds = feeds
        self._collecting = collecting
        if store is None or collecting is None:
            self._over.set()
        else:
            self._follower = self._follower_of(store, collecting)

    def _follower_of(self, store: Store, collecting: Collecting) -> Follower:
        collecting.tell, collecting.began = self._tell, self._began
        collecting.cut = self._cut
        pulse = self._home.pulse if self._home is not None else lambda: None
        return Follower(
            store,
            self._spool,
            self._view,
            _Dispatch(self),
            collecting=collecting,
            deliver=self._deliver,
            pulse=pulse,
        )

    def follow(self) -> None:
        """Begin to collect; called once, by the session."""
        if self._follower is not None:
            self._follower.start()

    def listen(self, listener: Listener) -> None:
        """Tell somebody what the crawl does from now on; of one that is over, how it ended."""
        with self._lock:
            self._listeners.append(listener)
            listener.view(self._view)
            if self.notes:
                listener.lines([sender_line(*note) for note in self.notes])
            is_over = self._over.is_set()
        if is_over:
            listener.ended(self._view)

    @property
    def view(self) -> CrawlView:
        """What is known of the crawl, at most a quarter of a second old."""
        return self._view

    @property
    def state(self) -> CrawlState:
        return self._view.state

    @property
    def finish_reason(self) -> str:
        """Scrapy's word for why it ended; empty while it has not."""
        return self._view.close_reason if self._view.over else ""

    @property
    def workers(self) -> list[str]:
        """Names of the workers that take part, or took part as far as the log tells."""
        now = {member.worker for member in self._view.members}
        return sorted(now or {line.worker for line in self._spool.lines()})

    @property
    def stats(self) -> dict[str, Any]:
        """Scrapy's stats, merged over all workers."""
        end = self._spool.end
        raw = end.stats if end is not None else self._stats_now()
        stats = {key: read_stat(value) for key, value in raw.items()}
        return stats | time_stats(self._view)

    def _stats_now(self) -> dict[str, bytes]:
        return Crawls(self._store).stats(self.id) if self._store is not None else {}

    def wait(self, timeout_s: float | None = None) -> CrawlView:
        """Block until the crawl is over and all that it brought is here.

        Returns:
            The last view; the present one when `timeout_s` passed before.
        """
        self._over.wait(timeout_s)
        return self._view

    @property
    def is_over(self) -> bool:
        """Whether the crawl is over and all that it brought is here."""
        return self._over.is_set()

    def stop(self, *, now: bool = False) -> CrawlState:
        """Send no further request and finish what is in flight; `now`: end at once.

        Returns:
            The state afterwards. Stopping what is over changes nothing.
        """
        if self._store is None:
            return self.state
        crawls = Crawls(self._need_store())
        return crawls.kill(self.id) if now else crawls.stop(self.id)

    def push(self, *urls: str, callback: str = "", priority: int = 0) -> int:
        """Add addresses to the running crawl; they are not filtered, as start URLs are not.

        Args:
            callback: name of a method of the spider; empty means `parse`.

        Returns:
            How many were added.

        Raises:
            ConfigError: one is no address that Scrapy can download; none was added.
            StateError: the crawl is over, or about to end.
        """
        crawls = Crawls(self._need_store())
        return crawls.push(self.id, urls, callback=callback, priority=priority)

    def set(self, **settings: str | int | float | bool) -> None:
        """Change settings of the running crawl: `crawl.set(LOG_LEVEL="DEBUG")`.

        Raises:
            ConfigError: one cannot be changed while a crawl runs, or its value is none.
            StateError: the crawl is over, or about to end.
        """
        Control(self._need_store()).set(self.id, settings)

    def attend(self, keyboard: Keyboard, interrupts: Interrupts) -> Halt | None:
        """Sit at the prompt of the child that has stood in the debugger for longest; blocks.

        Returns:
            Where it stood; None when no child stands in the debugger.
        """
        return attend(self._need_store(), self.id, keyboard, interrupts)

    def patch(self, spider: type | Order) -> Patched:
        """Let the running crawl go on with the spider as it is now; its queue stays.

        Blocks until all workers have loaded it, at most some ten seconds. Pages in flight that end
        within a second are finished by the old code; the others run again with the new one.

        Args:
            spider: the edited class, or an order with its source.

        Raises:
            PatchRefusedError: a worker cannot load it; the message has its traceback, and the old
                code goes on everywhere.
            CannotShipError: something that the spider uses exists in this process only.
            StateError: the crawl is over, or about to end.
        """
        store = self._need_store()
        order = spider if isinstance(spider, Order) else spider_order(spider, self._view.spec)
        return patch(store, self._view, order, self._spool)

    def retry(self, number: int | None = None) -> Retried:
        """Put failed requests back, each once; a crawl that is over goes on with them.

        Of what a request had brought before it failed nothing comes twice, as far as it is the
        same. A crawl that goes on belongs to this session, which collects it: `wait` waits again.

        Args:
            number: of a failure: all of its kind at its place; None: all.

        Raises:
            ConfigError: there is no failure of that number.
            StateError: the crawl is about to end, or was lost; or no session is open for it.
        """
        home, store = self._home, self._store
        if home is None or store is None:
            raise StateError(
                f"crawl {self.id} was read from this disk: `vs.connect().retry({self.id!r})`, "
                f"%vretry or `vscrapy retry {self.id}` puts its failures back"
            )
        home.check()
        choice, log_end = Choice(self._spool, number), Logs(store).end(self.id)
        put = Retries(store).put_back(self.id, choice.requests, home.record.session)
        if put.reopened:
            self._go_on(store, home, log_end)
        return choice.mark(put)

    def _go_on(self, store: Store, home: Home, log_end: str) -> None:
        """Follow a crawl that was over and is open again."""
        collecting = Collecting(store, self._spool, home.record)
        collecting.begin()
        self._spool.forget_end()
        view = Crawls(store).view(self.id)
        with self._lock:
            self._view, self._collecting = view, collecting
            self._listeners.clear()  # they have heard of the end
            self._over.clear()
            self._feeds = Feeds.find(self._spool.folder) if collecting.claim is not None else None
        home.adopt(self)
        self._follower = self._follower_of(store, collecting)
        self._follower.log_after = log_end
        self._follower.start()

    @property
    def feeds(self) -> tuple[str, ...]:
        """A line on each feed that was written, and on what went wrong with one; see `attach`."""
        return tuple(note.text for note in self.feed_notes)

    @property
    def feed_notes(self) -> tuple[Note, ...]:
        """The same, with whether the line is bad news."""
        return tuple(self._feeds.notes) if self._feeds is not None else ()

    @property
    def collected_by(self) -> str:
        """Who collects it, when what it brings does not come here: `host1 (terminal, pid 77)`."""
        collecting = self._collecting
        if collecting is None or collecting.claim is not None or collecting.is_here:
            return ""
        return described(collecting.holder) if collecting.holder else ""

    def take(self) -> None:
        """Collect here what is still to come, whoever does so now; within a second."""
        if self._collecting is not None:
            self._collecting.ask_to_take()

    @property
    def elsewhere(self) -> tuple[Kept, ...]:
        """What other machines, or other users, have collected."""
        return self._collecting.elsewhere if self._collecting is not None else ()

    @property
    def notes(self) -> tuple[tuple[int, str], ...]:
        """What its user should know about who collects it, each with its level."""
        return tuple(self._collecting.notes) if self._collecting is not None else ()

    def source(self, code_version: int = 1) -> tuple[Bundle, bool]:
        """What was shipped, and whether it was this user who shipped it, from this machine.

        Raises:
            CrawlNotFoundError: it is neither kept here nor on the server any more.
            StateError: it was not shipped from here, and no server is connected.
        """
        kept = self._spool.code(code_version)
        if kept is not None:
            return kept, True
        store = self._need_store()
        code = Codes(store).get(self._view.spec, code_version)
        return Crawls(store).bundle(code.bundle), False

    def _need_store(self) -> Store:
        if self._store is None:
            raise StateError(f"crawl {self.id} is {self.state}: it cannot be changed any more")
        return self._store

    def close(self) -> None:
        """Follow it no further; what is in the spool stays readable. Idempotent."""
        if self._follower is not None:
            self._follower.close()
        if self._feeds is not None:
            self._feeds.leave()
        self._spool.release()

    def complete_feeds(self) -> None:
        """Complete the feeds of a crawl that is over and collected; blocks. Idempotent."""
        if self._feeds is None:
            return
        try:
            self._feeds.finish(len(self._spool))
        except Exception:
            # In a thread that has to tell the end of the crawl, whatever fails here.
            logger.exception("Crawl %s: its feeds were not finished", self.id)

    def __repr__(self) -> str:
        return f"<Crawl {'; '.join([describe(self._view), *self.feeds])}>"

    # Of the follower's thread.

    def _told(self, view: CrawlView) -> None:
        with self._lock:
            self._view = view
            listeners = list(self._listeners)
        for listener in listeners:
            listener.view(view)

    def _lines(self, lines: Sequence[LogLine]) -> None:
        for listener in list(self._listeners):
            listener.lines(lines)

    def _deliver(self, outputs: Sequence[Output]) -> None:
        if self._feeds is None:
            return
        self._feeds.deliver(outputs)
        news = [sender_line(logging.WARNING, text) for text in self._feeds.news()]
        if news:
            self._lines(news)

    def _tell(self, level: int, text: str) -> None:
        self._lines([sender_line(level, text)])

    def _began(self) -> None:
        if self._feeds is None:
            self._feeds = Feeds.find(self._spool.folder)

    def _cut(self) -> None:
        if self._feeds is not None:
            self._feeds.begin_again()

    def _ended(self, view: CrawlView) -> None:
        collecting = self._collecting
        if collecting is not None and collecting.is_last:
            try:
                stats = self._stats_now()
            except StoreError as exc:
                logger.warning("Crawl %s: its stats are not known: %s", self.id, exc)
                stats = {}
            self._spool.keep_end(CrawlEnd(view=msgspec.msgpack.encode(view), stats=stats))
            collecting.leave()
        self.complete_feeds()
        self._spool.rest()
        with self._lock:
            self._view = view
            self._over.set()
            listeners = list(self._listeners)
        for listener in listeners:
            listener.ended(view)


class _Dispatch:
    """What the follower tells, to the crawl."""

    def __init__(self, crawl: Crawl) -> None:
        self.view = crawl._told
        self.lines = crawl._lines
        self.ended = crawl._ended
