"""Owns what crosses a process border: frozen structs and their codec; used by every process.

A reader ignores fields that it does not know and refuses a version that it does not know, so that
newer senders can talk to workers deployed long ago.
"""

import enum
from typing import Final, TypeVar

import msgspec

from vscrapy_magic.errors import ProtocolError
from vscrapy_magic.store.keys import CrawlId, MemberToken, SessionId, WorkerName

PROTOCOL: Final = 1

T = TypeVar("T", bound="Message")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is stored or sent as one piece."""

    protocol: int = PROTOCOL


def encode(message: Message) -> bytes:
    """The message as msgpack."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """The message that `encode` wrote.

    Raises:
        ProtocolError: the data is of an unknown version or no such message.
    """
    try:
        message = msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as exc:
        raise ProtocolError(f"not a {kind.__name__} of protocol {PROTOCOL}: {exc}") from exc
    if message.protocol > PROTOCOL:
        raise ProtocolError(
            f"a {kind.__name__} of protocol {message.protocol} was met, this program reads "
            f"{PROTOCOL}: update vscrapy_magic here"
        )
    return message


class CrawlState(enum.StrEnum):
    """States of a crawl, in the words that users read."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    CLOSING = "closing"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    STORE_ROLLED_BACK = "store_rolled_back"


class CloseLimits(msgspec.Struct, frozen=True):
    """CLOSESPIDER_* for the whole crawl; 0 means none.

    Attributes:
        no_item_ms: how long nothing may be scraped.
        no_item_pages: how many pages may come without an item.
    """

    items: int = 0
    pages: int = 0
    errors: int = 0
    timeout_ms: int = 0
    no_item_ms: int = 0
    no_item_pages: int = 0


class CrawlSpec(Message, frozen=True, kw_only=True):
    """What a sender orders; never changes afterwards.

    Attributes:
        bundle: sha256 (hex) of the shipped source, key `bundle:<sha256>`.
        workers: at most so many workers; 0 means all.
        lifo: whether newer requests of one priority go first (Scrapy's default memory queue).
        session: owner; None for a detached crawl.
        keep_open: whether the crawl goes on when nothing is left to do.
        out_bytes_max: bytes of items and failures that the sender has not acknowledged; beyond it
            leasing waits, so that nothing has to be dropped.
        env: environment (`sys.prefix` and versions) that workers of a local cluster must have.
        only: name of the worker that is to run it; empty for any.
        breaks: whether somebody is there to debug at a `breakpoint()`; others are passed.
        pdb: whether the first exception that nobody catches stops in the debugger.
        record_bytes: so much of all pages is sent back, compressed, for who replays them; 0: none
            is. Workers that are older than this know nothing of it, and send none.
    """

    crawl_id: CrawlId
    spider: str
    bundle: str
    args: dict[str, str] = {}
    settings: dict[str, msgspec.Raw] = {}
    session: SessionId | None = None
    workers: int = 0
    lifo: bool = True
    keep_open: bool = False
    limits: CloseLimits = CloseLimits()
    out_bytes_max: int = 64 * 1024 * 1024
    code_version: int = 1
    env: str = ""
    only: str = ""
    breaks: bool = False
    pdb: bool = False
    record_bytes: int = 0


class Code(Message, frozen=True, kw_only=True):
    """Source that a crawl runs from some moment on; `CrawlSpec` has the first one.

    Attributes:
        bundle: as in `CrawlSpec`.
        spider: name of the spider, or of its class.
        limits: what the settings in force say now; they hold unless a user has set others by hand.
    """

    bundle: str
    spider: str
    limits: CloseLimits = CloseLimits()


class SlotLimit(msgspec.Struct, frozen=True):
    """What the spider's settings say of one downloader slot.

    Attributes:
        concurrency: requests at once over the whole crawl; at least 1.
        exclusive: one worker at a time may use the slot (it has a delay, or AutoThrottle).
        words: the setting that says so, for users: `DOWNLOAD_DELAY = 1`.
    """

    slot: str
    concurrency: int
    exclusive: bool = False
    words: str = ""


class SlotUse(msgspec.Struct, frozen=True):
    """What a child does with one downloader slot at the moment of a step.

    Attributes:
        in_force: downloads at once that the child may have in the air right now: its share, or
            more while it shrinks to a share that was just cut.
        room: further requests that the child could start soon.
    """

    slot: str
    in_force: int
    room: int


class NewRequest(msgspec.Struct, frozen=True):
    """One request that a callback (or `start()`) brought.

    Attributes:
        payload: the request as the runtime serialized it, without default fields.
        fingerprint: 64 bits of its fingerprint, signed; None is not filtered (`dont_filter`).
        start: whether it is a start request (served first in, first out, after all others of its
            priority, as in Scrapy).
    """

    payload: bytes
    slot: str
    fingerprint: int | None = None
    priority: int = 0
    start: bool = False


class Part(msgspec.Struct, frozen=True):
    """Outputs that a lease publishes before it ends.

    Attributes:
        keys: content keys of the outputs in this step, 8 bytes each, joined.
    """

    lease_id: int
    keys: bytes


class StatKind(enum.StrEnum):
    """How the value of many children become one."""

    ADD = "add"
    MAX = "max"
    MIN = "min"
    SET = "set"


class StatDelta(msgspec.Struct, frozen=True):
    """Change of one stat; `value` is a decimal number, or msgpack for `StatKind.SET`."""

    kind: StatKind
    key: str
    value: bytes


class CookieChange(msgspec.Struct, frozen=True):
    """One cookie as it is from now on; `key` is jar, domain, path and name, `value` opaque."""

    key: str
    value: bytes


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange of a child with the frontier: commits what is done, asks for more.

    Attributes:
        seq: 1, 2, ...; a step that is sent again because its reply was lost keeps its number.
        ended: leases that Scrapy is done with, pipelines included.
        parts: leases that publish some of their outputs with this step and go on.
        released: leases given back, not started.
        limits: of slots that have settings of their own.
        default_limit: of all other slots; said with the first step and after a change of settings.
        control: version of the crawl's settings that this child works by.
        items: one packet of serialized items; empty when `item_count` is 0.
        records: one packet of recorded pages; empty when `record_count` is 0.
        records_left: pages that were not recorded, because what is kept of all of them is full.
        stats: of ended leases and of outputs without origin; never of a lease that goes on, so
            that a second run of a lost lease counts each once.
        close_reason: the spider asked for the end (CloseSpider); empty otherwise.
        want: leases wanted now.
        unstarted: leases in the child that have not been started.
        last_lease: highest lease number that the child knows.
        cookies_seen: cookie number of the last reply.
        filtered_stat: stats key that counts duplicates found by the frontier, which also takes them
            back from what the scheduler has counted as enqueued; empty for none.
        provisional: stream packet of failures and counters of leases that go on.
    """

    token: MemberToken
    seq: int
    ended: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()
    released: tuple[int, ...] = ()
    requests: tuple[NewRequest, ...] = ()
    limits: tuple[SlotLimit, ...] = ()
    default_limit: SlotLimit | None = None
    control: int = 1
    items: bytes = b""
    item_count: int = 0
    failures: bytes = b""
    failure_count: int = 0
    records: bytes = b""
    record_count: int = 0
    records_left: int = 0
    pages: int = 0
    errors: int = 0
    stats: tuple[StatDelta, ...] = ()
    cookies: tuple[CookieChange, ...] = ()
    close_reason: str = ""
    keep_open: bool = False
    want: int = 0
    unstarted: int = 0
    last_lease: int = 0
    cookies_seen: int = 0
    want_stats: bool = False
    filtered_stat: str = "dupefilter/filtered"
    slots: tuple[SlotUse, ...] = ()
    code_version: int = 1
    runtime_id: str = ""


class LeaseKind(enum.StrEnum):
    """What a lease allows its holder to do."""

    REQUEST = "request"
    START = "start"
    IDLE = "idle"


class Lease(msgspec.Struct, frozen=True):
    """The right to run one request (or `start()`, or `spider_idle`) and to commit its outputs.

    Attributes:
        lease_id: number that is never used twice in a crawl.
        origin: what is leased, the same for every run of it.
        payload: the request as its maker serialized it; empty for start and idle.
        attempt: 1 for the first run.
        has_parts: an earlier run published outputs; `Frontier.published` names them.
    """

    lease_id: int
    kind: LeaseKind
    origin: str
    slot: str
    payload: bytes
    attempt: int = 1
    has_parts: bool = False


class Share(msgspec.Struct, frozen=True):
    """What a child may do at one downloader slot from now on.

    Attributes:
        concurrency: downloads at once.
        idle_ms: milliseconds since another child last used an exclusive slot; -1 for never.
    """

    slot: str
    concurrency: int
    idle_ms: int = -1


class Totals(msgspec.Struct, frozen=True):
    """Counters of the whole crawl at the moment of a reply."""

    items: int = 0
    pages: int = 0
    errors: int = 0
    failures: int = 0
    queued: int = 0
    leased: int = 0


class StepReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the frontier answers to a step.

    Attributes:
        commit_no: number of the crawl's last commit.
        epoch: which history of the crawl `commit_no` belongs to.
        dropped: places in `Step.requests` that were seen before.
        hungry: children that wait for work.
        control: version of the crawl's settings; moved when a user changed one.
        stats: crawl-wide stats when the step asked for them.
        leave: this child is one too many: it is to finish what it holds and go.
        patched: newer code is in force: it is to go soon, and give back what does not end.
        records_full: no more pages are kept.
    """

    state: CrawlState
    close_reason: str
    commit_no: int
    epoch: int
    control: int
    hungry: int
    totals: Totals
    leases: tuple[Lease, ...] = ()
    dropped: tuple[int, ...] = ()
    shares: tuple[Share, ...] = ()
    cookies: tuple[CookieChange, ...] = ()
    cookie_no: int = 0
    stats: dict[str, bytes] = {}
    leave: bool = False
    patched: bool = False
    records_full: bool = False


class WorkerRecord(Message, frozen=True, kw_only=True):
    """What a worker says of itself with every beat."""

    name: WorkerName
    host: str
    pid: int
    slots: int
    used: int = 0
    python: str = ""
    scrapy: str = ""
    version: str = ""
    env: str = ""
    started_ms: int = 0
    cpu_percent: float = 0.0
    memory_bytes: int = 0
    draining: bool = False


class SessionRecord(Message, frozen=True, kw_only=True):
    """What a session says of itself with every beat."""

    session: SessionId
    host: str
    pid: int
    kind: str = "kernel"
    started_ms: int = 0


class Bundle(Message, frozen=True, kw_only=True):
    """Shipped source: what a child needs to know of the sender's code.

    Attributes:
        files: relative path -> content; written to the child's own folder before anything is run.
        entry: path of the file that the child executes as its `__main__` (it defines the spider).
        project: dotted name of a Scrapy project's settings module in `files`; empty for none.
        cells: (path, first line in path, label such as `Cell In[3]`, first line in the cell), for
            tracebacks that speak of cells; each begins a part that is compiled for itself.
        spider: name of the spider's class in the entry; empty where the spider's own name says it.
        env: environment variables; values are masked in all that is shown.
    """

    files: dict[str, bytes]
    entry: str
    project: str = ""
    cells: tuple[tuple[str, int, str, int], ...] = ()
    spider: str = ""
    env: dict[str, str] = {}


class ChildOrder(Message, frozen=True, kw_only=True):
    """What a supervisor tells the zygote about one child to start.

    Attributes:
        url: address of Redis, with password; never logged.
        folder: the child's own empty folder, its working directory.
        control_fd: read end of the pipe of `pipes.ToChild`; end of file means: parent died, exit.
        report_fd: write end of the pipe of `pipes.FromChild`.
        mark_fd: shared memory of `pipes.Mark`.
        code_version: number of the code that it is to run; 0: what is in force.
        is_trial: that code is only offered: the child loads it and waits.
    """

    crawl_id: CrawlId
    token: MemberToken
    worker: WorkerName
    url: str
    folder: str
    control_fd: int = -1
    report_fd: int = -1
    mark_fd: int = -1
    code_version: int = 0
    is_trial: bool = False
