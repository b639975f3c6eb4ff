"""Owns what a follower asks for: all that is new of one crawl, in one round trip.

Used by the sender's follower thread. Outputs, log lines and the crawl's view come together, and the
acknowledgement of what was kept before goes with them: a fast crawl then costs the server one
round trip for each look at it, however much there is to see.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from redis.exceptions import NoScriptError

from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.collectors import ask_collector, check_collector
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine, Logs
from vscrapy_magic.store.outputs import NOBODY, Claim, Output, Outputs, Witness
from vscrapy_magic.store.views import CrawlView, Views


class Arrived(msgspec.Struct, frozen=True):
    """What one look at a crawl brought.

    Attributes:
        outputs: after the witness that was given, oldest first.
        lines: after the entry that was given.
        log_after: to go on from.
        view: the crawl as it is now; None when it was not asked for.
        judged_ms: when somebody last looked for children that are gone; 0 without a view.
        refusal: why the server takes no writes; None when it does, or was not asked.
    """

    outputs: list[Output]
    lines: list[LogLine]
    log_after: str
    view: CrawlView | None
    judged_ms: int = 0
    refusal: StoreError | None = None


class Arrivals:
    """What arrives from one crawl; for one thread."""

    def __init__(self, store: Store, crawl_id: CrawlId) -> None:
        self._store = store
        self._crawl_id = crawl_id
        self._outputs = Outputs(store, crawl_id)
        self._logs = Logs(store)
        self._views = Views(store)

    def fetch(
        self,
        after: Witness | None,
        log_after: str,
        *,
        claim: Claim | None = NOBODY,
        ack: Output | None = None,
        items: int = 0,
        with_view: bool = True,
        with_refusal: bool = False,
    ) -> Arrived:
        """What came after those; blocks for one round trip (two when a child has joined).

        Args:
            claim: by what the caller collects; None for those who follow a crawl that somebody
                else collects: they get no outputs.
            ack: everything up to this output is kept by the caller. Idempotent.
            items: that the caller keeps so far.
            with_refusal: also see whether the server takes writes, by one that changes nothing.

        Raises:
            NotCollectorError: the claim does not count any more.
            StoreRolledBackError: the server lost what it had given out.
            CrawlNotFoundError: the crawl is past its retention.
        """
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            if claim is not None:
                if ack is not None:
                    self._outputs.ask_ack(pipe, ack, claim, items)
                ask_collector(pipe, self._crawl_id)
                self._outputs.ask(pipe, after)
            self._logs.ask(pipe, self._crawl_id, log_after)
            if with_view:
                self._views.ask(pipe, self._crawl_id)
            if with_refusal:
                self._store.ask_writes(pipe)
            replies: Iterator[Any] = iter(pipe.execute(raise_on_error=False))
        outputs: list[Output] = []
        if claim is not None:
            if ack is not None:
                self._outputs.acked(self._sound(next(replies)), ack, claim, items)
            # Before the outputs: another collector may have had what is no longer there.
            check_collector(self._sound(next(replies)), self._crawl_id, claim)
            outputs = self._outputs.found(self._sound(next(replies)), after)
        lines, log_after = self._logs.found(self._sound(next(replies)), log_after)
        view, judged_ms = None, 0
        if with_view:
            row, members = self._sound(next(replies)), self._sound(next(replies))
            view = self._views.found(self._crawl_id, row, members)
            judged_ms = self._views.judged_ms(row)
        refusal = self._refusal(next(replies)) if with_refusal else None
        return Arrived(outputs, lines, log_after, view, judged_ms, refusal)

    def ack(self, output: Output, claim: Claim, items: int) -> None:
        """Everything up to this output is kept by the caller; raises as `Outputs.ack`."""
        self._outputs.ack(output, claim, items)

    def _refusal(self, reply: Any) -> StoreError | None:
        try:
            self._sound(reply)
        except StoreError as exc:
            return exc
        return None

    def _sound(self, reply: Any) -> Any:
        """A reply, unless it is an error that stands for all of them."""
        if isinstance(reply, Exception) and not isinstance(reply, NoScriptError):
            with self._store.errors_wrapped():
                raise reply
        return reply
