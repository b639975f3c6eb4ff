"""Owns what the supervisor's loop and the thread that speaks with the store tell each other."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.messages import CrawlSpec, WorkerRecord
from vscrapy_magic.store.presence import LiveCrawl
from vscrapy_magic.worker.death import Death
from vscrapy_magic.worker.output import Output


class Tenant(msgspec.Struct, frozen=True):
    """One child that runs.

    Attributes:
        code_version: number of the code that it runs, or tries.
        is_trial: whether it was started to try that.
        starts: whether its place in the crawl is to be kept for it, because it is on its way.
    """

    worker: WorkerName
    crawl_id: CrawlId
    token: MemberToken
    code_version: int = 1
    is_trial: bool = False
    starts: bool = False


class Roster(msgspec.Struct, frozen=True):
    """What runs in this process at one moment.

    Attributes:
        taking: whether new children may be started: not while the workers leave, or while what
            children come from is not ready; then a crawl is for others.
        problem: why none can be started, in one line; empty when one can, or will soon.
        resting: where a child died just now: (worker, crawl).
        woken: whether somebody asked for this look.
    """

    records: tuple[WorkerRecord, ...]
    tenants: tuple[Tenant, ...] = ()
    taking: bool = True
    problem: str = ""
    resting: frozenset[tuple[WorkerName, CrawlId]] = frozenset()
    woken: bool = False


class Wanted(msgspec.Struct, frozen=True):
    """A crawl that is not over, as this process knows it at one moment."""

    crawl: LiveCrawl
    spec: CrawlSpec


class Start(msgspec.Struct, frozen=True):
    """A child that is to be started; its place in the crawl is reserved, or it tries new code."""

    tenant: Tenant
    spec: CrawlSpec


class Plan(msgspec.Struct, frozen=True):
    """What should become of a roster.

    Attributes:
        stop: crawls whose children have heard of the end, and have a limited time for it.
        kill: crawls whose children are to end now.
        leave: children that are to make room for another crawl, or for newer code.
        drop: children that tried code which was refused.
        changed: crawls whose settings changed.
        slots: of workers whose number a user has changed.
        busy: whether something wants attention each second: a child here, or one elsewhere that has
            not been heard of.
        known: False when the store did not answer; then nothing else is said.
    """

    starts: tuple[Start, ...] = ()
    stop: frozenset[CrawlId] = frozenset()
    kill: frozenset[CrawlId] = frozenset()
    leave: frozenset[MemberToken] = frozenset()
    drop: frozenset[MemberToken] = frozenset()
    changed: frozenset[CrawlId] = frozenset()
    slots: Mapping[WorkerName, int] = {}
    busy: bool = False
    known: bool = True


class Burial(msgspec.Struct, frozen=True):
    """A child that has ended.

    Attributes:
        fatal: the crawl cannot run anywhere, in one line; empty when it can.
        unfit: it cannot run on this worker, in one line; empty when it can.
        suspects: leases to blame for its death.
        clear: whether that is one; otherwise it was one of them, nobody knows which.
        died: monotonic seconds.
        folder: what it wrote there goes to the sender; then the folder is removed.
        death: what is to be told of its end among the failures of the crawl.
        trial_failed: why it could not try new code; empty for other children.
    """

    tenant: Tenant
    output: Output
    died: float
    fatal: str = ""
    unfit: str = ""
    suspects: tuple[int, ...] = ()
    clear: bool = True
    folder: Path | None = None
    death: Death | None = None
    trial_failed: str = ""
