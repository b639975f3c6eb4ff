"""Owns how a sender follows its crawl: collects outputs and log lines, beats, and sees the end.

Runs in the sender's main thread; what is collected is handed to a sink, and acknowledged after
that.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from vscrapy_magic.errors import StoreRolledBackError, StoreUnreachableError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, CrawlView, Mover
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.messages import CrawlState, SessionRecord
from vscrapy_magic.store.outputs import Output, Outputs, Witness
from vscrapy_magic.store.presence import BEAT_MS, Presence

LOOK_FIRST_S: Final = 0.02  # pause after something came
LOOK_LAST_S: Final = 0.25  # pause after nothing came for a while
LOGS_AFTER_END_S: Final = 1.0  # the last lines of a worker come a moment after the crawl's end


class Sink(Protocol):
    """Where a crawl's outputs go; returns only when they are kept."""

    def keep(self, outputs: Sequence[Output]) -> None: ...

    def lines(self, lines: Sequence[LogLine]) -> None: ...


class Follower:
    """Follows one crawl to its end; used from one thread."""

    def __init__(self, store: Store, crawl_id: CrawlId, sink: Sink, session: SessionRecord) -> None:
        self._crawl_id = crawl_id
        self._crawls = Crawls(store)
        self._outputs = Outputs(store, crawl_id)
        self._logs = Logs(store)
        self._presence = Presence(store)
        self._session = session
        self._sink = sink
        self._after: Witness | None = None
        self._log_after = "0-0"
        self._beaten = 0.0

    def follow(self, tick: Callable[[], None]) -> CrawlView:
        """Collect until the crawl is over; its last state.

        Args:
            tick: called between looks, at least four times a second; may stop the crawl.
        """
        pause_s, over_since = LOOK_FIRST_S, 0.0
        while True:
            try:
                came = self._look()
                view = self._crawls.view(self._crawl_id)
            except StoreUnreachableError:
                came, view = False, None
            if view is not None and view.over and not came:
                over_since = over_since or time.monotonic()
                if time.monotonic() - over_since > LOGS_AFTER_END_S:
                    return view
            tick()
            pause_s = LOOK_FIRST_S if came else min(2 * pause_s, LOOK_LAST_S)
            time.sleep(pause_s)

    def _look(self) -> bool:
        """Collect what there is; whether something came."""
        if time.monotonic() - self._beaten > BEAT_MS / 1000:
            self._presence.beat_session(self._session)
            self._beaten = time.monotonic()
        lines, self._log_after = self._logs.read(self._crawl_id, self._log_after)
        if lines:
            self._sink.lines(lines)
        try:
            outputs = self._outputs.read(self._after)
            if outputs:
                self._sink.keep(outputs)
                self._after = outputs[-1].witness
                self._outputs.ack(outputs[-1])
        except StoreRolledBackError:
            self._crawls.move(self._crawl_id, CrawlState.STORE_ROLLED_BACK, Mover.SENDER)
            return False
        return bool(lines or outputs)
