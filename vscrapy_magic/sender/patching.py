"""Owns how a running crawl gets the spider as it is now: `%vpatch`, `crawl.patch`, `vscrapy patch`.

Runs in the sender's process. The source is made as for a new crawl; data files and environment
variables that went along with the crawl go along again. Arguments and settings of the order stay,
those of the spider come with it. All workers try it before it is in force (`store/codes.py`).
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import PatchRefusedError, StateError
from vscrapy_magic.sender.classes import class_order, class_source
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order, digest_of, limits_in
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.codes import ACCEPTED, Codes, Offer
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.control import Control
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import Bundle, CloseLimits, Code, CrawlSpec
from vscrapy_magic.store.values import Codec
from vscrapy_magic.store.views import CrawlView

LOOK_S: Final = 0.02  # between two looks at whether it is decided
OFFER_WITHIN_S: Final = 15.0  # for an offer before this one, and its children, to be done with
_LIMITS: Final = {
    "items": "CLOSESPIDER_ITEMCOUNT",
    "pages": "CLOSESPIDER_PAGECOUNT",
    "errors": "CLOSESPIDER_ERRORCOUNT",
    "timeout_ms": "CLOSESPIDER_TIMEOUT",
}


class Patched(msgspec.Struct, frozen=True):
    """New code that is in force.

    Attributes:
        version: its number; what it brings carries it.
        tried: whether workers have loaded it; False: nobody took part who could.
        seconds: from the offer until it was in force.
        notes: what its user should know.
    """

    version: int
    tried: bool
    seconds: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = f"after {self.seconds:.2f} s" if self.tried else "(no worker was there to try it)"
        return "\n".join([f"code version {self.version} is in force {how}", *self.notes])


def spider_order(spider: type, spec: CrawlSpec) -> Order:
    """An order with the source of a class at hand, for a crawl that was ordered before.

    Raises:
        ConfigError: its source is not known.
        CannotShipError: something that the spider uses exists in this process only.
    """
    return class_order(CrawlOptions(args=spec.args), spider, *class_source(spider))


def with_data(bundle: Bundle, before: Bundle) -> Bundle:
    """New source with the data files and environment variables that went along before."""
    data = {
        name: content
        for name, content in before.files.items()
        if name != before.entry and not name.endswith(".py")
    }
    return msgspec.structs.replace(bundle, files=data | bundle.files, env=before.env | bundle.env)


def patch(store: Store, view: CrawlView, order: Order, spool: Spool | None) -> Patched:
    """Let a running crawl go on with other source; blocks until that is in force or refused.

    Args:
        spool: where source is kept for who runs failed calls again; None for nowhere.

    Raises:
        PatchRefusedError: a worker cannot load it; the old code goes on everywhere.
        StateError: the crawl is over, or about to end.
        ConfigError: a limit among the settings is no number.
    """
    codes, spec, begun = Codes(store), view.spec, time.monotonic()
    now = Crawls(store).view(spec.crawl_id)
    before = codes.get(spec, now.code_version)
    bundle = with_data(order.shipped.bundle, Crawls(store).bundle(before.bundle))
    limits = limits_in(order.in_force | _given(spec))
    code = Code(bundle=digest_of(bundle), spider=order.spider, limits=limits)
    offer = _offer(codes, spec, code, bundle)
    if spool is not None:  # before anything that it brings arrives
        spool.keep_code(offer.version, bundle)
    if not offer.accepted:
        _decided(codes, spec, offer.version)
    notes = [*order.notes, *_limit_notes(store, spec, before.limits, limits)]
    if order.shipped.pinned and now.workers_max != 1:
        notes.append(f"{order.shipped.pinned}: workers=1 of %vset or `vscrapy set` keeps it on one")
    seconds = time.monotonic() - begun
    return Patched(offer.version, not offer.accepted, seconds, tuple(dict.fromkeys(notes)))


def _offer(codes: Codes, spec: CrawlSpec, code: Code, bundle: Bundle) -> Offer:
    until = time.monotonic() + OFFER_WITHIN_S
    while time.monotonic() < until:
        offer = codes.offer(spec.crawl_id, code, bundle)
        if offer.version:
            return offer
        time.sleep(LOOK_S)
    raise StateError(
        f"crawl {spec.crawl_id}: another change of its code has not ended for "
        f"{OFFER_WITHIN_S:.0f} s; try again"
    )


def _decided(codes: Codes, spec: CrawlSpec, version: int) -> None:
    standing = codes.look(spec.crawl_id, version)
    while standing.offered == version:
        time.sleep(LOOK_S)
        standing = codes.look(spec.crawl_id, version)
    if standing.in_force < version:
        is_ours = standing.said and standing.said != ACCEPTED
        where = f" on {standing.by}" if is_ours and standing.by else ""
        why = f"\n{standing.text}" if is_ours and standing.text else ""
        raise PatchRefusedError(
            f"crawl {spec.crawl_id}: code version {version} was refused{where}, and version "
            f"{standing.in_force} goes on everywhere{why}"
        )


def _given(spec: CrawlSpec) -> dict[str, Any]:
    """Settings of the order."""
    codec = Codec()
    return {name: codec.decode(bytes(raw)) for name, raw in spec.settings.items()}


def _limit_notes(
    store: Store, spec: CrawlSpec, before: CloseLimits, limits: CloseLimits
) -> list[str]:
    by_hand: Mapping[str, object] | None = None
    notes = []
    for field, name in _LIMITS.items():
        value = getattr(limits, field)
        if value == getattr(before, field):
            continue
        if by_hand is None:
            by_hand = Control(store).get(spec.crawl_id)[1]
        shown = value / 1000 if field == "timeout_ms" else value
        if name in by_hand:
            notes.append(f"{name} stays at {by_hand[name]}, which was set by hand")
        else:
            notes.append(f"{name} = {shown:g} for the whole crawl from here on")
    return notes
