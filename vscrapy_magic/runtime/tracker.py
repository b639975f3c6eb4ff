"""Owns what the leases of this child have produced and not yet committed.

Runs in the event loop of a child; nothing here may be called from another thread.

A `Run` is one lease being worked on. Which run a piece of code works for is known by a context
variable, or by the request that it is about; what belongs to no run (timers, signal handlers) goes
to the tracker's own unit. Of a lost lease everything is thrown away, also what is still to come.
"""

import enum
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextvars import Context, ContextVar
from hashlib import blake2b
from time import monotonic
from typing import Final

import msgspec
from scrapy import Request

from vscrapy_magic.runtime import mark
from vscrapy_magic.runtime.inline import Inline
from vscrapy_magic.store.messages import Lease, LeaseKind, NewRequest

PART_AGE_S: Final = 1.0  # a lease older than this publishes what it has
STARVING_PART_AGE_S: Final = 0.1  # the same, while there is nothing to do here or elsewhere
PART_OUTPUTS: Final = 1000  # more than this is published at once, at any age
PART_BYTES: Final = 1024 * 1024
KEY_BYTES: Final = 8
_PART_REQUESTS_MIN: Final = 1
DELIVERED_MAX: Final = 65_536  # outputs of a failed lease that a retry can drop; 512 kB


class OutputKind(enum.Enum):
    """What an output is; in content keys its value."""

    REQUEST = b"r"
    ITEM = b"i"
    FAILURE = b"f"
    PAGE = b"p"  # a recorded one


_OF_THIS_RUN: Final = frozenset({OutputKind.FAILURE, OutputKind.PAGE})


class Output(msgspec.Struct):
    """One thing that a lease brought.

    Attributes:
        data: the record of an item, a failure or a page; empty for a request, and for a page that
            is only counted.
        identity: what makes an output the same in another run of the lease.
        new: a request as the frontier takes it.
        request: the same as Scrapy's object, for `request_dropped`.
        key: content key, once somebody asked for it.
        tally: group of a failure that is only counted; one record tells of all in a step.
    """

    kind: OutputKind
    data: bytes = b""
    identity: bytes = b""
    new: NewRequest | None = None
    request: Request | None = None
    key: bytes = b""
    tally: str = ""

    @property
    def size(self) -> int:
        return len(self.data) if self.new is None else len(self.new.payload)


class Counts:
    """Changes of stats that are not committed, by kind."""

    def __init__(self) -> None:
        self.add: dict[str, int | float] = {}
        self.max: dict[str, int | float] = {}
        self.min: dict[str, int | float] = {}
        self.set: dict[str, object] = {}
        self.pages = 0
        self.errors = 0

    def __bool__(self) -> bool:
        return bool(self.add or self.set or self.max or self.min or self.pages or self.errors)

    def merge(self, other: "Counts") -> None:
        """Take what another one counted after this one."""
        for key, value in other.add.items():
            self.add[key] = self.add.get(key, 0) + value
        for key, value in other.max.items():
            self.max[key] = max(self.max.get(key, value), value)
        for key, value in other.min.items():
            self.min[key] = min(self.min.get(key, value), value)
        self.set |= other.set
        self.pages += other.pages
        self.errors += other.errors


class Unit:
    """What one origin has produced since its last commit or part."""

    def __init__(self) -> None:
        self.outputs: deque[Output] = deque()
        self.bytes = 0
        self.requests = 0
        self.counts = Counts()
        self.cookies: dict[str, bytes] = {}
        self.close_reason = ""

    def __bool__(self) -> bool:
        return bool(self.outputs or self.counts or self.cookies or self.close_reason)

    def append(self, output: Output) -> None:
        self.outputs.append(output)
        self.bytes += output.size
        self.requests += output.new is not None

    def take(self, requests_max: int, bytes_max: int) -> list[Output]:
        """Outputs from the front that fit; one that is too big for any step goes alone."""
        taken: list[Output] = []
        requests = size = 0
        while self.outputs:
            output = self.outputs[0]
            is_request = output.new is not None
            if requests + is_request > requests_max or (taken and size + output.size > bytes_max):
                break
            requests += is_request
            size += output.size
            taken.append(self.outputs.popleft())
        self.requests -= requests
        self.bytes -= size
        return taken


class RunState(enum.Enum):
    """What became of a lease here."""

    BUFFERED = enum.auto()  # nothing was done with it
    RUNNING = enum.auto()
    DONE = enum.auto()  # Scrapy is done with it
    ENDED = enum.auto()  # committed
    VOID = enum.auto()  # lost or given back: what it brings is thrown away


class Run:
    """One lease in this child.

    Attributes:
        pending: how many of its requests Scrapy works on: the leased one, and those that it brought
            and that cannot leave this process.
        published: content keys of outputs that an earlier run published.
        keep_open: whether somebody wants the spider kept open (idle leases).
        scraping: whether the response of the leased request is there.
        inline: responses that its code awaited itself, once there are some.
    """

    def __init__(self, lease: Lease, published: bytes = b"") -> None:
        self.lease: Final = lease
        self.state = RunState.BUFFERED
        self.unit = Unit()
        self.pending = 0
        self.begun = 0.0
        self.requests: list[Request] = []
        self.fingerprints: set[int] = set()
        self.keep_open = False
        self.scraping = lease.kind is not LeaseKind.REQUEST
        self.inline: Inline | None = None
        self.published = frozenset(
            published[at : at + KEY_BYTES] for at in range(0, len(published), KEY_BYTES)
        )
        self._ordinals: Counter[bytes] = Counter()
        self._sent = bytearray()  # content keys of parts, as far as they are remembered
        self._again: set[bytes] = set()  # content keys of failures and pages
        self.has_failed = False  # whether a failure is among what it brought

    @property
    def live(self) -> bool:
        """Whether outputs still go to this lease."""
        return self.state in {RunState.BUFFERED, RunState.RUNNING, RunState.DONE}

    def key(self, output: Output) -> bytes:
        """The content key of one of its outputs.

        Keys of equal outputs differ by their ordinal, so outputs must be asked for in their order.
        """
        if not output.key:
            identity = output.identity
            if output.new is not None:
                identity = output.new.payload
            digest = blake2b(output.kind.value + identity, digest_size=KEY_BYTES).digest()
            ordinal = self._ordinals[digest]
            self._ordinals[digest] += 1
            if ordinal:
                tail = ordinal.to_bytes(KEY_BYTES, "big")
                digest = blake2b(digest + tail, digest_size=KEY_BYTES).digest()
            output.key = digest
        return output.key

    def sent(self, outputs: Iterable[Output]) -> None:
        """Remember what is published, in case that the lease fails."""
        for output in outputs:
            if len(self._sent) > KEY_BYTES * DELIVERED_MAX:
                return
            if output.kind not in _OF_THIS_RUN:
                self._sent += self.key(output)

    def again(self, output: Output) -> None:
        """Remember an output that a retry may well bring again: a failure, a recorded page."""
        self._again.add(self.key(output))

    def delivered(self, outputs: Iterable[Output]) -> tuple[bytes, bool]:
        """Content keys of all that this lease has brought, with these; whether there is more."""
        self.sent(outputs)
        keys = b"".join(sorted(self.published - self._again)) + self._sent
        most = KEY_BYTES * DELIVERED_MAX
        return bytes(keys[:most]), len(keys) > most

    def is_published(self, output: Output) -> bool:
        """Whether an earlier run of this lease has brought this output already."""
        return bool(self.published) and self.key(output) in self.published


_current: ContextVar[Run | None] = ContextVar("vscrapy_lease", default=None)


class working_for:  # noqa: N801 - used as a function, many times for each page
    """Let what is called here, and what it starts, work for a run."""

    __slots__ = ("_before", "_run", "_token")

    def __init__(self, run: Run | None) -> None:
        self._run = run

    def __enter__(self) -> None:
        run = self._run
        self._token = _current.set(run)
        self._before = mark.swap(0 if run is None else run.lease.lease_id)

    def __exit__(self, *_: object) -> None:
        mark.swap(self._before)
        _current.reset(self._token)


def run_in(context: Context) -> Run | None:
    """The run that code in a context works for."""
    return context.get(_current)


def lease_in(context: Context) -> int:
    """The lease that code in a context works for; 0 for none."""
    run = context.get(_current)
    return 0 if run is None else run.lease.lease_id


class Tracker:
    """All runs of this child, and the unit of what belongs to none."""

    def __init__(self) -> None:
        self.loose = Unit()
        self.running: dict[int, Run] = {}
        self.done: deque[Run] = deque()
        self.completions = 0
        self._by_request: dict[Request, Run] = {}

    def current(self) -> Run | None:
        """The run that the calling code works for; None when it works for none that is open."""
        run = _current.get()
        return run if run is not None and run.state is not RunState.ENDED else None

    def unit(self) -> Unit | None:
        """Where outputs of the calling code go; None when they are to be thrown away."""
        run = self.current()
        if run is None:
            return self.loose
        return run.unit if run.live else None

    def begin(self, run: Run) -> None:
        """A lease starts to be worked on."""
        run.state = RunState.RUNNING
        run.begun = monotonic()
        self.running[run.lease.lease_id] = run
        mark.begin(run.lease.lease_id)

    def attach(self, run: Run, request: Request) -> None:
        """A request is worked on for a run."""
        self._by_request[request] = run
        run.requests.append(request)

    def run_of(self, request: Request | None) -> Run | None:
        """The run that a request belongs to; None when it belongs to none."""
        return None if request is None else self._by_request.get(request)

    def request_done(self, run: Run) -> None:
        """Scrapy is done with one of the requests that hold a run open."""
        run.pending -= 1
        if run.pending == 0 and run.state is RunState.RUNNING:
            run.state = RunState.DONE
            self.done.append(run)
            self.completions += 1
        if run.pending == 0:
            self._detach(run)

    def _detach(self, run: Run) -> None:
        for request in run.requests:
            self._by_request.pop(request, None)
        run.requests.clear()
        run.inline = None

    def add(self, output: Output) -> bool:
        """Keep an output of the calling code; False when it was published by an earlier run."""
        run = self.current()
        if run is None:
            self.loose.append(output)
        elif run.live:
            if output.kind in _OF_THIS_RUN:
                run.again(output)
                run.has_failed |= output.kind is OutputKind.FAILURE
            if run.is_published(output):
                return False
            run.unit.append(output)
        return True

    def end(self, run: Run) -> None:
        """A run is committed."""
        run.state = RunState.ENDED
        self.running.pop(run.lease.lease_id, None)
        mark.end(run.lease.lease_id)

    def void(self, run: Run) -> None:
        """A lease was lost or given back."""
        run.state = RunState.VOID
        run.unit = Unit()
        run.inline = None
        self.running.pop(run.lease.lease_id, None)
        mark.end(run.lease.lease_id)
        if run in self.done:
            self.done.remove(run)

    def due_parts(self, now: float, *, starving: bool) -> Iterator[Run]:
        """Running leases that should publish what they have."""
        for run in self.running.values():
            if run.state is RunState.RUNNING and run.unit.outputs and _is_due(run, now, starving):
                yield run

    def next_part_at(self) -> float | None:
        """When the next part becomes due by age; None when nothing waits for that."""
        begun = (run.begun for run in self.running.values() if _may_publish(run))
        first = min(begun, default=None)
        return None if first is None else first + PART_AGE_S

    def idle(self) -> bool:
        """Whether nothing is leased here and nothing waits to be committed."""
        return not (self.running or self.loose)


def _may_publish(run: Run) -> bool:
    return run.state is RunState.RUNNING and bool(run.unit.outputs)


def _is_due(run: Run, now: float, starving: bool) -> bool:
    unit = run.unit
    if len(unit.outputs) >= PART_OUTPUTS or unit.bytes >= PART_BYTES:
        return True
    age = now - run.begun
    if starving and unit.requests >= _PART_REQUESTS_MIN:
        return run.lease.kind is LeaseKind.START or age >= STARVING_PART_AGE_S
    return age >= PART_AGE_S


def confirmed(outputs: Iterable[Output]) -> Iterator[int]:
    """Fingerprints of committed requests."""
    for output in outputs:
        if output.new is not None and output.new.fingerprint is not None:
            yield output.new.fingerprint
