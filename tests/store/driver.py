"""A child as the frontier sees it: joins, steps, repeats steps, expires."""

from collections.abc import Iterable
from typing import Any

from tests.placing import place
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import new_crawl_id
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import MemberToken, WorkerName, crawl_key
from vscrapy_magic.store.messages import CrawlSpec, NewRequest, SlotLimit, SlotUse, Step, StepReply


def order(store: Store, **fields: Any) -> Frontier:
    """A new crawl's frontier."""
    spec = CrawlSpec(crawl_id=new_crawl_id(), spider="s", bundle="none", **fields)
    place(store, spec)
    return Frontier(store, spec.crawl_id)


def requests(
    numbers: Iterable[int],
    *,
    slot: str = "site",
    priority: int = 0,
    start: bool = False,
    filtered: bool = True,
) -> tuple[NewRequest, ...]:
    """One request a number, whose payload and fingerprint it is."""
    return tuple(
        NewRequest(str(n).encode(), slot, n if filtered else None, priority, start) for n in numbers
    )


class Child:
    """One member of a crawl."""

    def __init__(self, frontier: Frontier, name: str) -> None:
        self.frontier = frontier
        self.token = MemberToken(name)
        self.seq = 0
        self.shares: dict[str, int] = {}
        self._last = Step(token=self.token, seq=0)
        frontier.join(self.token, WorkerName(name))

    def step(self, **fields: Any) -> StepReply:
        self.seq += 1
        if fields.get("requests"):
            fields.setdefault("limits", (SlotLimit("site", 16),))
        fields.setdefault("slots", tuple(SlotUse(s, n, 100) for s, n in self.shares.items()))
        self._last = Step(token=self.token, seq=self.seq, **fields)
        reply = self.frontier.step(self._last)
        self.shares.update({share.slot: share.concurrency for share in reply.shares})
        return reply

    def again(self) -> StepReply:
        """Send the last step once more, as after a lost reply."""
        return self.frontier.step(self._last)

    def expire(self) -> None:
        """Make the deadline of this child pass."""
        key = crawl_key(self.frontier.crawl_id, "members")
        self.frontier.store.client.zadd(key, {self.token: 1})
