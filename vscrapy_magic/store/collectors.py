"""Owns who collects the outputs of a crawl: one session at a time, known by a number that rises.

Used by senders. A session that places a crawl collects it from the beginning; others take its place
when it has given that up, when its session is gone (as `lua/beat.lua` judges, by the server's
clock), or when they are told to. Whoever acknowledges names its number, so a late acknowledgement
of a former collector changes nothing (`lua/ack.lua`).

What a collector had kept and not acknowledged when another came is collected again by that one:
an output is of the place that acknowledged it, and any other place lets go of it.
"""

from typing import Any, Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, NotCollectorError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, crawl_key, crawl_prefix, global_key
from vscrapy_magic.store.messages import SessionRecord, decode, encode
from vscrapy_magic.store.outputs import Claim, Witness
from vscrapy_magic.store.scripts import load_script

FIRST_NO: Final = 1  # of the session that placed the crawl


class Kept(msgspec.Struct, frozen=True):
    """Items that one place has collected.

    Attributes:
        host: where that is.
    """

    host: str
    items: int


class Standing(msgspec.Struct, frozen=True):
    """Who collects a crawl, and how far it is collected.

    Attributes:
        claim: to acknowledge by; None: this session does not collect.
        no: of the collector that there is now.
        holder: another session that collects, and is not gone.
        is_here: whether that one keeps outputs in the very same place.
        acked: the last acknowledged output; None when there is none.
        own_no: commit number of the last one that this place acknowledged; 0 when there is none.
        elsewhere: what other places have.
    """

    claim: Claim | None
    no: int
    holder: SessionRecord | None
    is_here: bool
    acked: Witness | None
    own_no: int
    elsewhere: tuple[Kept, ...]


class Collectors:
    """Who collects one crawl, as one session sees it; thread-safe, a call is one round trip.

    Args:
        place: name of the folder where this session keeps the outputs.
    """

    def __init__(self, store: Store, crawl_id: CrawlId, record: SessionRecord, place: str) -> None:
        self._store = store
        self._crawl_id = crawl_id
        self._record = record
        self._place = place

    def first(self) -> Claim:
        """That of the session that placed the crawl, given by `Placement.create`."""
        return self._claim(FIRST_NO)

    def wish(self) -> Standing:
        """Collect from now on, unless another session does that is not gone.

        Raises:
            CrawlNotFoundError: the crawl is past its retention.
        """
        return self._ask("wish")

    def take(self) -> Standing:
        """Collect from now on, whoever has done so; raises as `wish`."""
        return self._ask("take")

    def look(self) -> Standing:
        """See who collects; raises as `wish`."""
        return self._ask("look")

    def leave(self, claim: Claim) -> None:
        """Let others collect what is still to come. Idempotent; raises as `wish`."""
        self._ask("leave", claim.no)

    def _ask(self, what: str, *more: int) -> Standing:
        record = self._record
        reply = self._store.call(
            load_script("collect"),
            (crawl_prefix(self._crawl_id), global_key("sessions:due")),
            [what, record.session, encode(record), self._place, *more],
        )
        if reply[0] == b"unknown":
            raise CrawlNotFoundError(f"crawl {self._crawl_id}: past its retention")
        said, no, holder, place, acked_no, acked_nonce, own_no, kept = reply
        is_ours = said == b"ok"
        return Standing(
            claim=self._claim(no) if is_ours else None,
            no=no,
            holder=decode(holder, SessionRecord) if holder and not is_ours else None,
            is_here=place.decode() == self._place,
            acked=Witness(acked_no, acked_nonce.decode()) if acked_no else None,
            own_no=own_no,
            elsewhere=tuple(each for each in map(_kept, kept[1::2]) if each.items),
        )

    def _claim(self, no: int) -> Claim:
        return Claim(no, self._record.session, self._place, self._record.host)


def ask_collector(pipe: Any, crawl_id: CrawlId) -> None:
    """Add the question for the present collector to a pipeline; `check_collector` reads it."""
    pipe.hmget(crawl_key(crawl_id, "meta"), "collector_no", "collector")


def check_collector(reply: Any, crawl_id: CrawlId, claim: Claim) -> None:
    """See that the claim still counts.

    Raises:
        NotCollectorError: it does not.
    """
    no, session = reply
    is_there = no is not None  # otherwise the whole crawl is gone, which others notice
    if is_there and (int(no), session.decode()) != (claim.no, claim.session):
        raise NotCollectorError(f"crawl {crawl_id}: another session collects it now")


def _kept(raw: bytes) -> Kept:
    _, items, host = raw.decode().split(" ", 2)
    return Kept(host, int(items))
