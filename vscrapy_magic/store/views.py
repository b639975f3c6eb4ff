"""Owns what is known of crawls at one moment, and how it is asked for; any process with a store."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, MemberToken, SessionId, WorkerName, crawl_key
from vscrapy_magic.store.messages import CrawlSpec, CrawlState, Totals, decode

_NAMES_MAX: Final = 10_000  # members whose workers are remembered; their names never change
S = CrawlState
FINAL_STATES: Final = frozenset(
    {S.FINISHED, S.STOPPED, S.FAILED, S.CANCELLED, S.LOST, S.STORE_ROLLED_BACK}
)


class MemberView(msgspec.Struct, frozen=True):
    """One child of a crawl."""

    token: MemberToken
    worker: WorkerName


class CrawlView(msgspec.Struct, frozen=True):
    """What is known of one crawl at one moment.

    Attributes:
        why: what a waiting crawl waits for, or why one has failed.
        since_ms: when it came to its state, or began to wait for what it waits for.
        control: version of its settings; moved by each change that a user makes.
        workers_max: at most so many workers, as of now; 0 means all.
        code_version: number of the code in force; 1 is what was ordered.
        offer_version: number of code that workers are trying just now; 0 for none.
        session: its owner: who ordered it, or has opened it again; None for a detached crawl.
        limited_by: the setting that keeps running workers from doing more, and where:
            `DOWNLOAD_DELAY = 1 on example.com`; empty when none does.
        recorded: pages that are kept for who replays them.
        unrecorded: pages that are not, because what is kept of all of them was full.
        halts: how many children stand in the debugger.
        halted_at: where the first of them does: `breakpoint on w-2: Cell In[3], line 12, in parse`.
    """

    crawl_id: CrawlId
    spec: CrawlSpec
    state: CrawlState
    why: str
    close_reason: str
    totals: Totals
    members: tuple[MemberView, ...]
    created_ms: int
    started_ms: int
    ended_ms: int
    since_ms: int = 0
    control: int = 1
    workers_max: int = 0
    limited_by: str = ""
    halts: int = 0
    halted_at: str = ""
    code_version: int = 1
    offer_version: int = 0
    session: SessionId | None = None
    recorded: int = 0
    unrecorded: int = 0

    @property
    def over(self) -> bool:
        """Whether the crawl is in a final state."""
        return self.state in FINAL_STATES

    def waits(self, now_ms: int) -> str:
        """What a crawl waits for, and since when: `no worker takes part (for 12 s)`."""
        if self.state is not S.WAITING or not self.why:
            return self.why
        return f"{self.why} (for {max(0, now_ms - self.since_ms) // 1000:,} s)"

    def __repr__(self) -> str:
        return f"<CrawlView {self.crawl_id} {self.spec.spider} {self.state}>"


_VIEW_FIELDS: Final = (
    *("spec", "state", "why", "close_reason", "limited", "session", "halted_at"),
    *("created_ms", "started_ms", "ended_ms", "state_ms", "control", "workers"),
    *("code_no", "offer_no", "halts", "rec_count", "rec_left"),
    *("items", "pages", "errors", "failures", "queued", "leased"),
    "judged_ms",
)


class Views:
    """Views of crawls of one Redis; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._workers: dict[tuple[str, str], WorkerName] = {}

    def ask(self, pipe: Any, crawl_id: CrawlId) -> None:
        """Add the two questions about one crawl to a pipeline; `found` takes the two replies."""
        pipe.hmget(crawl_key(crawl_id, "meta"), *_VIEW_FIELDS)
        pipe.zrange(crawl_key(crawl_id, "members"), 0, -1)

    def judged_ms(self, row: Sequence[Any]) -> int:
        """When somebody last looked for children that are gone, in the first of the two replies."""
        return int(row[-1] or 0)

    def found(self, crawl_id: CrawlId, row: Sequence[Any], members: Sequence[bytes]) -> CrawlView:
        """The view in the replies; one more round trip when a child is new.

        Raises:
            CrawlNotFoundError: never there, or past its retention.
        """
        if row[0] is None:
            raise self.unknown(crawl_id)
        tokens = [raw.decode() for raw in members]
        self._learn((crawl_id, token) for token in tokens)
        return _view(crawl_id, row, [self._member(crawl_id, token) for token in tokens])

    def all(self, ids: Sequence[str], *, named: bool = True) -> list[CrawlView]:
        """Views of those that are there, in one round trip, or two when a child is new.

        Args:
            named: whether the workers of members are asked for. Each worker of a crawl asking for
                all others would be 40,000 questions among 200.
        """
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for crawl_id in ids:
                self.ask(pipe, CrawlId(crawl_id))
            replies = pipe.execute()
        asked = zip(ids, replies[::2], replies[1::2], strict=True)
        there = [
            (CrawlId(crawl_id), row, [raw.decode() for raw in members])
            for crawl_id, row, members in asked
            if row[0] is not None
        ]
        if named:
            self._learn((crawl_id, token) for crawl_id, _, tokens in there for token in tokens)
        return [
            _view(crawl_id, row, [self._member(crawl_id, token) for token in tokens])
            for crawl_id, row, tokens in there
        ]

    def unknown(self, crawl_id: CrawlId) -> CrawlNotFoundError:
        """What to raise for a crawl that is not there."""
        return CrawlNotFoundError(
            f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those there"
        )

    def _learn(self, members: Iterable[tuple[str, str]]) -> None:
        """Ask for the workers of children that were not seen before."""
        new = [member for member in members if member not in self._workers]
        if not new:
            return
        if len(self._workers) > _NAMES_MAX:
            self._workers = {}
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for crawl_id, token in new:
                pipe.hget(crawl_key(CrawlId(crawl_id), f"m:{token}"), "worker")
            names = pipe.execute()
        for member, name in zip(new, names, strict=True):
            if name is not None:
                self._workers[member] = WorkerName(name.decode())

    def _member(self, crawl_id: CrawlId, token: str) -> MemberView:
        name = self._workers.get((crawl_id, token), WorkerName(""))
        return MemberView(MemberToken(token), name)


def _view(crawl_id: CrawlId, row: Sequence[Any], members: Sequence[MemberView]) -> CrawlView:
    spec, state, why, close_reason, limited, session, halted_at = row[:7]
    numbers = [int(value or 0) for value in row[7:-1]]
    created_ms, started_ms, ended_ms, since_ms, control, workers, *numbers = numbers
    code_no, offer_no, halts, recorded, unrecorded, *totals = numbers
    return CrawlView(
        crawl_id=crawl_id,
        spec=decode(spec, CrawlSpec),
        state=CrawlState(state.decode()),
        why=(why or b"").decode(),
        close_reason=(close_reason or b"").decode(),
        totals=Totals(*totals),
        members=tuple(members),
        created_ms=created_ms,
        started_ms=started_ms,
        ended_ms=ended_ms,
        since_ms=since_ms,
        control=control,
        workers_max=workers,
        code_version=code_no or 1,
        offer_version=offer_no,
        session=SessionId(session.decode()) if session else None,
        recorded=recorded,
        unrecorded=unrecorded,
        limited_by=(limited or b"").decode() if state.decode() == S.RUNNING else "",
        halts=0 if state.decode() in FINAL_STATES else halts,
        halted_at="" if state.decode() in FINAL_STATES else (halted_at or b"").decode(),
    )
