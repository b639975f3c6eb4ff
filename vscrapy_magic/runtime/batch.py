"""Owns how outputs of many leases become one step, and what follows when it was accepted or not.

Runs in the event loop of a child. A batch is what one step takes from the tracker; when leases of
it turn out to be lost it is built again without them, under the same number.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from vscrapy_magic.runtime.codec import item_packet
from vscrapy_magic.runtime.stats import deltas
from vscrapy_magic.runtime.tracker import Counts, Output, OutputKind, Run, RunState, Tracker
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.messages import CookieChange, LeaseKind, NewRequest, Part

STEP_REQUESTS: Final = 1000  # the frontier takes no more in one call
STEP_BYTES: Final = 1024 * 1024  # of outputs in one step; one bigger output goes alone
STEP_LEASES: Final = 1000


@dataclass(slots=True)
class Taken:
    """What a step takes of one run, or of the unit without origin (`run` is None)."""

    run: Run | None
    ends: bool
    outputs: list[Output]
    counts: Counts = field(default_factory=Counts)
    cookies: dict[str, bytes] = field(default_factory=dict)
    close_reason: str = ""

    @property
    def lease_id(self) -> int | None:
        return None if self.run is None else self.run.lease.lease_id


@dataclass(slots=True)
class Batch:
    """What one step carries."""

    taken: list[Taken] = field(default_factory=list)
    released: list[Run] = field(default_factory=list)
    requests: int = 0
    bytes: int = 0
    full: bool = False  # whether more waits than fits

    def __bool__(self) -> bool:
        return bool(self.taken or self.released)

    @property
    def ends_any(self) -> bool:
        return any(taken.ends for taken in self.taken)

    @property
    def has_parts(self) -> bool:
        return any(taken.run is not None and not taken.ends for taken in self.taken)

    def without(self, lost: frozenset[int]) -> list[Taken]:
        """Leave out what lost leases brought; says what that was."""
        gone = [taken for taken in self.taken if taken.lease_id in lost]
        gone += [
            Taken(run, ends=False, outputs=[])
            for run in self.released
            if run.lease.lease_id in lost
        ]
        self.taken = [taken for taken in self.taken if taken.lease_id not in lost]
        self.released = [run for run in self.released if run.lease.lease_id not in lost]
        return gone

    def new_requests(self) -> list[Output]:
        """Outputs that are requests, in the order of `Step.requests`."""
        return [out for taken in self.taken for out in taken.outputs if out.new is not None]

    def fields(self) -> dict[str, Any]:
        """The step's fields that speak of what was produced."""
        counts = Counts()
        cookies: dict[str, bytes] = {}
        outputs: list[Output] = []
        for taken in self.taken:
            counts.merge(taken.counts)
            cookies |= taken.cookies
            outputs += taken.outputs
        items = [out.data for out in outputs if out.kind is OutputKind.ITEM]
        found = [out for out in outputs if out.kind is OutputKind.FAILURE]
        failures = [out.data for out in found if not out.tally]
        failures += _tallies([out for out in found if out.tally])
        pages = [out.data for out in outputs if out.kind is OutputKind.PAGE]
        kept = [data for data in pages if data]
        requests: list[NewRequest] = [out.new for out in outputs if out.new is not None]
        return {
            "ended": tuple(t.run.lease.lease_id for t in self.taken if t.run and t.ends),
            "parts": tuple(
                Part(taken.run.lease.lease_id, b"".join(map(taken.run.key, taken.outputs)))
                for taken in self.taken
                if taken.run is not None and not taken.ends
            ),
            "released": tuple(run.lease.lease_id for run in self.released),
            "requests": tuple(requests),
            "items": item_packet(items) if items else b"",
            "item_count": len(items),
            "failures": item_packet(failures) if failures else b"",
            "failure_count": len(found),
            "records": item_packet(kept) if kept else b"",
            "record_count": len(kept),
            "records_left": len(pages) - len(kept),
            "pages": counts.pages,
            "errors": counts.errors,
            "stats": tuple(deltas(counts)),
            "cookies": tuple(CookieChange(key, value) for key, value in cookies.items()),
            "close_reason": next((t.close_reason for t in self.taken if t.close_reason), ""),
            "keep_open": any(t.ends and t.run is not None and t.run.keep_open for t in self.taken),
        }


def _tallies(counted: list[Output]) -> list[bytes]:
    """Failures of which nothing but their number is kept: one record for each group."""
    counts = Counter(output.tally for output in counted)
    first = {output.tally: output.data for output in reversed(counted)}
    packed = []
    for group, count in counts.items():
        record = msgspec.msgpack.decode(first[group], type=FailureRecord)
        packed.append(msgspec.msgpack.encode(msgspec.structs.replace(record, counted=count)))
    return packed


def gather(tracker: Tracker, now: float, *, starving: bool) -> Batch:
    """Take what the next step should carry: what is done, then parts that are due."""
    batch = Batch()
    _take_loose(batch, tracker)
    while tracker.done and not batch.full:
        batch.full = not _take_run(batch, tracker.done[0], ends=True)
        if not batch.full:
            tracker.done.popleft()
    for run in [] if batch.full else list(tracker.due_parts(now, starving=starving)):
        batch.full = not _take_run(batch, run, ends=False)
        if batch.full:
            break
    return batch


def _room(batch: Batch) -> tuple[int, int]:
    return STEP_REQUESTS - batch.requests, STEP_BYTES - batch.bytes


def _take_outputs(batch: Batch, outputs_of: Any) -> list[Output]:
    requests_max, bytes_max = _room(batch)
    outputs: list[Output] = []
    if bytes_max > 0 and requests_max > 0:
        outputs = outputs_of.take(requests_max, bytes_max)
    batch.requests += sum(out.new is not None for out in outputs)
    batch.bytes += sum(out.size for out in outputs)
    return outputs


def _take_loose(batch: Batch, tracker: Tracker) -> None:
    unit = tracker.loose
    if not unit:
        return
    taken = Taken(None, ends=False, outputs=_take_outputs(batch, unit))
    taken.counts, unit.counts = unit.counts, Counts()
    taken.cookies, unit.cookies = unit.cookies, {}
    taken.close_reason, unit.close_reason = unit.close_reason, ""
    batch.taken.append(taken)
    batch.full = bool(unit.outputs)


def _take_run(batch: Batch, run: Run, *, ends: bool) -> bool:
    """Take what fits of a run; False when something of it must wait for the next step."""
    unit = run.unit
    if len(batch.taken) >= STEP_LEASES:
        return False
    fits = unit.requests <= STEP_REQUESTS - batch.requests and (
        unit.bytes <= STEP_BYTES - batch.bytes or (not batch.bytes and len(unit.outputs) <= 1)
    )
    if not fits and batch.taken and unit.requests <= STEP_REQUESTS and unit.bytes <= STEP_BYTES:
        # What fits into a step of its own must not be cut in two: a part costs more.
        return False
    outputs = _take_outputs(batch, unit)
    _tell_delivered(run, outputs)
    if unit.outputs or not ends:
        if outputs:
            run.sent(outputs)
            # Cookies are no output: setting one twice does no harm, and what was published with it
            # may need it.
            taken = Taken(run, ends=False, outputs=outputs, cookies=unit.cookies)
            unit.cookies = {}
            batch.taken.append(taken)
        return not unit.outputs
    taken = Taken(run, ends=True, outputs=outputs, counts=unit.counts, cookies=unit.cookies)
    taken.close_reason = unit.close_reason
    unit.counts, unit.cookies = Counts(), {}
    batch.taken.append(taken)
    return True


def _tell_delivered(run: Run, outputs: list[Output]) -> None:
    """Let the first failure among them know what else its lease has brought: see `%vretry`."""
    first = next((o for o in outputs if o.kind is OutputKind.FAILURE and not o.tally), None)
    if first is None or run.lease.kind is not LeaseKind.REQUEST:
        return
    keys, more = run.delivered(outputs)
    record = msgspec.msgpack.decode(first.data, type=FailureRecord)
    record = msgspec.structs.replace(record, delivered=keys, delivered_more=more)
    first.data = msgspec.msgpack.encode(record)


def settle(batch: Batch, tracker: Tracker) -> None:
    """The step was accepted: its leases are done with."""
    for taken in batch.taken:
        if taken.run is not None and taken.ends and taken.run.state is RunState.DONE:
            tracker.end(taken.run)
