"""Owns which of this process's workers take part in which crawl; runs in the thread of the desk.

A crawl without any worker comes first, then the older one; of the workers the least busy one. When
all slots are taken and a crawl has no worker anywhere, a crawl that has several gives up one: not
its first, so that no two processes can leave it without any. A process that cannot fork just now
takes none: reserving a place would keep others from it, and a crawl of one worker waiting.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from vscrapy_magic.errors import StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import ACTIVE_STATES, Crawls
from vscrapy_magic.store.frontier import Frontier
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.messages import CrawlState, WorkerRecord
from vscrapy_magic.store.presence import LiveCrawl
from vscrapy_magic.worker.plan import Roster, Start, Tenant, Wanted
from vscrapy_magic.worker.trying import new_token

ASK_AGAIN_S: Final = 30.0  # after "no more children", unless the crawl says that it wants some
ROOM_AFTER_S: Final = 2.0  # without any worker, before others are asked to make room
_FULL: Final = "all slots of the workers are taken"
_BROKEN: Final = "a worker cannot start it: {problem}"


class Placing:
    """Starts that are wanted and possible, look by look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._crawls = Crawls(store)
        self._not_before: dict[CrawlId, float] = {}
        self._alone_since: dict[CrawlId, float] = {}
        self._unfit: set[tuple[WorkerName, CrawlId]] = set()

    def refuse(self, tenant: Tenant) -> None:
        """A worker cannot run a crawl: it lacks a package. It is not asked again."""
        self._unfit.add((tenant.worker, tenant.crawl_id))

    def place(
        self, roster: Roster, wanted: Mapping[CrawlId, Wanted]
    ) -> tuple[list[Start], set[MemberToken]]:
        """Children to start, each reserved already, and children that make room."""
        self._forget(wanted)
        if not roster.taking:
            self._unfit.clear()  # the zygote is replaced: packages beside it have changed
        if roster.woken:
            self._not_before.clear()
        used = Counter({record.name: 0 for record in roster.records})
        here = {(tenant.worker, tenant.crawl_id) for tenant in roster.tenants}
        used.update(worker for worker, _ in here)
        excluded = here | roster.resting | self._unfit
        starts: list[Start] = []
        alone: list[LiveCrawl] = []
        for each in sorted(wanted.values(), key=lambda w: w.crawl.members):  # the older one first
            crawl, spec = each.crawl, each.spec
            fitting = [
                r for r in roster.records if spec.env in {"", r.env} and spec.only in {"", r.name}
            ]
            if crawl.state not in ACTIVE_STATES or not fitting:
                continue
            if not roster.taking:
                self._tell_problem(crawl, roster.problem)
                continue
            began = self._starts(each, fitting, used, excluded)
            starts += began
            used.update(start.tenant.worker for start in began)
            if not crawl.members and all(used[r.name] >= r.slots for r in fitting) and not began:
                alone.append(crawl)
        return starts, self._make_room(alone, roster, wanted)

    def _starts(
        self,
        wanted: Wanted,
        fitting: Iterable[WorkerRecord],
        used: Counter[WorkerName],
        excluded: frozenset[tuple[WorkerName, CrawlId]] | set[tuple[WorkerName, CrawlId]],
    ) -> list[Start]:
        now, crawl_id = time.monotonic(), wanted.crawl.crawl_id
        stands_by = now < self._not_before.get(crawl_id, 0.0)
        if stands_by and wanted.crawl.members and not wanted.crawl.wanted:
            return []
        starts: list[Start] = []
        for record in sorted(fitting, key=lambda r: used[r.name]):
            if used[record.name] >= record.slots or (record.name, crawl_id) in excluded:
                continue
            token = new_token(record.name)
            if not Frontier(self._store, crawl_id).reserve(token, record.name):
                self._not_before[crawl_id] = now + ASK_AGAIN_S
                break
            tenant = Tenant(record.name, crawl_id, token, wanted.crawl.code_version)
            starts.append(Start(tenant, wanted.spec))
        return starts

    def _make_room(
        self, alone: Iterable[LiveCrawl], roster: Roster, wanted: Mapping[CrawlId, Wanted]
    ) -> set[MemberToken]:
        """One child for each crawl that has waited long enough without any worker."""
        now = time.monotonic()
        leave: set[MemberToken] = set()
        waiting = {crawl.crawl_id for crawl in alone}
        self._alone_since = {c: self._alone_since.get(c, now) for c in waiting}
        for crawl in alone:
            if now - self._alone_since[crawl.crawl_id] < ROOM_AFTER_S:
                continue
            if crawl.why != _FULL:
                self._explain(crawl, _FULL)
            ours = {t.token: t.crawl_id for t in roster.tenants if t.token not in leave}
            crowded = [
                (wanted[crawl_id].crawl.members, token)
                for token, crawl_id in ours.items()
                if crawl_id in wanted and self._is_spare(token, wanted[crawl_id].crawl)
            ]
            if crowded:
                leave.add(max(crowded)[1])
                del self._alone_since[crawl.crawl_id]
        return leave

    def _is_spare(self, token: MemberToken, crawl: LiveCrawl) -> bool:
        """Whether it is not the first of several; no two processes think that of the same one."""
        if crawl.members < 2:
            return False
        first, *others = sorted(Frontier(self._store, crawl.crawl_id).members()) or [token]
        return token != first and bool(others)

    def _tell_problem(self, crawl: LiveCrawl, problem: str) -> None:
        """Let a crawl that nobody has taken say what is wrong here; others may still take it."""
        why = _BROKEN.format(problem=problem)
        if problem and not crawl.members and not crawl.why:
            self._explain(crawl, why)

    def _explain(self, crawl: LiveCrawl, why: str) -> None:
        if crawl.state in {CrawlState.QUEUED, CrawlState.WAITING}:
            try:
                self._crawls.explain(crawl.crawl_id, crawl.state, why)
            except StateError:
                return

    def _forget(self, wanted: Mapping[CrawlId, Wanted]) -> None:
        self._not_before = {c: at for c, at in self._not_before.items() if c in wanted}
        self._unfit = {place for place in self._unfit if place[1] in wanted}
