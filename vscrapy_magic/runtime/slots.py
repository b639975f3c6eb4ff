"""Owns what this child may do at each downloader slot, and what it tells the frontier about that.

Runs in the event loop of a child. The crawl's limits are what Scrapy's own downloader makes of the
settings; a share is what the frontier lets this child use of them. The downloader learns its share
through the mapping that it asks when it makes a slot, and through the slot itself afterwards.

A slot with a delay is kept for a moment after its last request here: whoever takes it over has to
wait the whole delay once more, because it cannot know when the last request was really sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from math import ceil
from time import monotonic
from typing import Any, Final

from scrapy import Request
from scrapy.core.downloader import Downloader, Slot
from scrapy.crawler import Crawler

from vscrapy_magic.runtime.engine import asks_spider, slot_clock
from vscrapy_magic.store.messages import Share, SlotLimit, SlotUse

PER_DOMAIN: Final = "CONCURRENT_REQUESTS_PER_DOMAIN"
DELAY: Final = "DOWNLOAD_DELAY"
OWN_MAX: Final = 500  # entries of DOWNLOAD_SLOTS told at once; others are with their first request
WAITING_MAX: Final = 2  # requests that may wait in the downloader for one slot without a delay
_HOLD_DELAYS: Final = 1.5  # a slot with a delay is kept for so many delays after its last use
_HOLD_MIN_S: Final = 1.0
_ROOM_DELAY_S: Final = 0.25  # a guess at AutoThrottle's delay, for how many leases to keep ready
_NO_SLOT: Final = "\0"  # a name that no slot has
_START_DELAY_S: Final = 5.0  # AUTOTHROTTLE_START_DELAY, where the downloader does not say


class Nominal:
    """The crawl's limits per slot, as this Scrapy computes them for one process."""

    def __init__(
        self, downloader: Downloader, crawler: Crawler, changed: Mapping[str, Any]
    ) -> None:
        # Not `spider.crawler`: a spider may be made without it, by a `from_crawler` of its own.
        settings, spider = crawler.settings, crawler.spider
        self._own: dict[str, dict[str, Any]] = dict(settings.getdict("DOWNLOAD_SLOTS", {}))
        self._throttled = settings.getbool("AUTOTHROTTLE_ENABLED")
        self._downloader = downloader
        self.per_ip = bool(getattr(downloader, "ip_concurrency", 0))
        concurrency = (
            getattr(downloader, "ip_concurrency", 0)
            or getattr(downloader, "domain_concurrency", 0)
            or settings.getint(PER_DOMAIN)
        )
        delay_s = settings.getfloat(DELAY)
        if asks_spider:
            # This Scrapy's downloader asks the spider; later ones turn attributes into settings.
            concurrency = getattr(spider, "max_concurrent_requests", concurrency)
            delay_s = getattr(spider, "download_delay", delay_s)
        self._concurrency = int(concurrency)
        self._delay_s = float(delay_s)
        self.delay_changed = False
        self.change(changed)

    def change(self, values: Mapping[str, Any]) -> None:
        """Settings that a user changed; they win over what the spider says of itself."""
        if not self.per_ip:
            self._concurrency = int(values.get(PER_DOMAIN, self._concurrency))
        if DELAY in values:
            self._delay_s = float(values[DELAY])
            # AutoThrottle chooses delays itself; the setting is its least one.
            self.delay_changed = not self._throttled

    def __contains__(self, slot: str) -> bool:
        """Whether a slot has settings of its own (DOWNLOAD_SLOTS)."""
        return slot in self._own

    def concurrency(self, slot: str) -> int:
        """Downloads at once; at least 1."""
        return max(1, int(self._own.get(slot, {}).get("concurrency", self._concurrency)))

    def delay_s(self, slot: str) -> float:
        """Seconds between two requests."""
        return float(self._own.get(slot, {}).get("delay", self._delay_s))

    def delayed(self, slot: str) -> bool:
        """Whether there is, or may come to be, a delay between two requests."""
        return self._throttled or self.delay_s(slot) > 0

    def exclusive(self, slot: str) -> bool:
        """Whether one worker at a time may use the slot."""
        return self.delayed(slot) or self.concurrency(slot) == 1

    def limit(self, slot: str) -> SlotLimit:
        """What the frontier is told of one slot."""
        return SlotLimit(slot, self.concurrency(slot), self.exclusive(slot), self._words(slot))

    def default(self) -> SlotLimit:
        """What the frontier is told of all slots without settings of their own."""
        return self.limit(_NO_SLOT)

    def own(self) -> Iterator[SlotLimit]:
        """What it is told of the others."""
        yield from map(self.limit, islice(self._own, OWN_MAX))

    def _words(self, slot: str) -> str:
        """The setting that limits a slot, as its user would write it."""
        own = self._own.get(slot, {})
        if self._throttled:
            return "AUTOTHROTTLE_ENABLED = True"
        if self.delay_s(slot) > 0:
            return f"{'DOWNLOAD_SLOTS delay' if 'delay' in own else DELAY} = {self.delay_s(slot):g}"
        name = "CONCURRENT_REQUESTS_PER_IP" if self.per_ip else PER_DOMAIN
        if "concurrency" in own:
            name = "DOWNLOAD_SLOTS concurrency"
        return f"{name} = {self.concurrency(slot)}"

    def hold_s(self, slot: str) -> float:
        """For how long an unused slot is kept."""
        delay = self.delay_s(slot)
        if self._throttled:
            delay = max(delay, float(getattr(self._downloader, "_delay", _START_DELAY_S)))
        return max(_HOLD_MIN_S, delay * _HOLD_DELAYS)

    def own_settings(self, slot: str) -> dict[str, Any]:
        """This slot's entry of DOWNLOAD_SLOTS."""
        return self._own.get(slot, {})

    def settings_of(self, slot: str) -> dict[str, Any]:
        """What the downloader is to know of a new slot, but for its concurrency."""
        own = self._own.get(slot, {})
        return {"delay": self._delay_s, **own} if self.delay_changed else own


class ShareSettings(dict[str, dict[str, Any]]):
    """DOWNLOAD_SLOTS as the downloader sees it: every slot's concurrency is this child's share."""

    def __init__(self, slots: "Slots") -> None:
        super().__init__()
        self._slots = slots

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002
        own = self._slots.nominal.settings_of(key)
        return {**own, "concurrency": self._slots.share(key)}


class Slots:
    """Shares of this child; what it does at each slot right now."""

    def __init__(
        self,
        downloader: Downloader,
        crawler: Crawler,
        local_slot: Callable[[Request], Slot],
        changed: Mapping[str, Any],
    ) -> None:
        self.nominal: Final = Nominal(downloader, crawler, changed)
        self._downloader = downloader
        self._local_slot = local_slot
        self._shares: dict[str, int] = {}
        self.cut: Final[set[str]] = set()  # slots in use here that this child may use no more
        self._others_used: dict[str, float] = {}
        self._slot_of: dict[Request, str] = {}
        self._last_used: dict[str, float] = {}
        self._begun: dict[str, int] = {}
        self._members = 0
        downloader.per_slot_settings = ShareSettings(self)

    def key(self, request: Request) -> str:
        """The slot that a request belongs to."""
        return self._downloader.get_slot_key(request)

    def share(self, slot: str) -> int:
        """Downloads at once here; of a slot without a lease, what a fair part would be."""
        share = self._shares.get(slot)
        if share is not None:
            return max(1, share)
        return max(1, self.nominal.concurrency(slot) // self._members) if self._members else 1

    def grant(self, share: Share) -> bool:
        """The frontier says what this child may do; whether that is less than before."""
        name = share.slot
        less = share.concurrency < self._shares.get(name, 0)
        self._shares[name] = share.concurrency
        (self.cut.discard if share.concurrency else self.cut.add)(name)
        if not self.nominal.exclusive(name) and share.concurrency:
            self._members = ceil(self.nominal.concurrency(name) / share.concurrency)
        if share.idle_ms >= 0 and self.nominal.delayed(name):
            self._others_used[name] = monotonic() - share.idle_ms / 1000
        slot = self._downloader.slots.get(name)
        if slot is not None:
            # What is cut off here is given back; one that cannot be must not wait for ever.
            slot.concurrency = max(1, share.concurrency)
        return less

    def begin(self, request: Request, name: str) -> None:
        """A request goes to the downloader; the delay to another child's last one is kept."""
        self._slot_of[request] = name
        self._begun[name] = self._begun.get(name, 0) + 1
        used = self._others_used.pop(name, None)
        if used is not None:
            slot = self._local_slot(request)
            slot.lastseen = max(slot.lastseen, slot_clock() - (monotonic() - used))

    def finish(self, request: Request) -> None:
        """The downloader is done with a request."""
        name = self._slot_of.pop(request, None)
        if name is None:
            return
        left = self._begun[name] - 1
        if left > 0:
            self._begun[name] = left
        else:
            del self._begun[name]
        self._last_used[name] = monotonic()

    def has_room(self, slot: str) -> bool:
        """Whether the downloader can do something with one more request of a slot soon."""
        begun = self._begun.get(slot, 0)
        local = self._downloader.slots.get(slot)
        if local is not None:
            begun = max(begun, len(local.active))
            if local.delay and local.queue:
                # One waits for its turn already; further ones could not be given back.
                return False
        waiting = 0 if self.nominal.delayed(slot) else WAITING_MAX
        return begun < self.share(slot) + waiting

    def uses(self, buffered: dict[str, int], prefetch: int) -> tuple[SlotUse, ...]:
        """What a step says of the slots; those that are not listed are given up."""
        now = monotonic()
        uses = []
        for name, share in list(self._shares.items()):
            local = self._downloader.slots.get(name)
            waiting, begun = buffered.get(name, 0), self._begun.get(name, 0)
            transferring = len(local.transferring) if local is not None else 0
            if not (waiting or begun or transferring or self._is_held(name, now)):
                del self._shares[name]
                self.cut.discard(name)
                self._last_used.pop(name, None)
                continue
            room = max(0, self._room(name, share, prefetch) - waiting - begun)
            uses.append(SlotUse(name, max(share, transferring), room))
        return tuple(uses)

    def _room(self, name: str, share: int, prefetch: int) -> int:
        if self.nominal.delayed(name):
            delay_s = self.nominal.delay_s(name) or _ROOM_DELAY_S
            return 1 + ceil(min(share, 1 / delay_s))
        return share + WAITING_MAX + prefetch

    def _is_held(self, name: str, now: float) -> bool:
        used = self._last_used.get(name)
        if used is None or not self.nominal.delayed(name):
            return False
        return now - used < self.nominal.hold_s(name)

    def next_release_at(self) -> float | None:
        """When the first of the kept slots should be given up."""
        times = [
            used + self.nominal.hold_s(name)
            for name, used in self._last_used.items()
            if name in self._shares and name not in self._begun and self.nominal.delayed(name)
        ]
        return min(times, default=None)

    def limits(self, names: Iterable[str]) -> Iterator[SlotLimit]:
        """Limits of slots that have settings of their own."""
        for name in names:
            if name in self.nominal:
                yield self.nominal.limit(name)
