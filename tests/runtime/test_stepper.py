"""When a child steps: how long what a lease brought waits for company."""

from types import SimpleNamespace
from typing import Any

import pytest

from vscrapy_magic.runtime.pace import INTERVAL_MAX_S
from vscrapy_magic.runtime.stepper import FAILURE_S, Stepper
from vscrapy_magic.runtime.tracker import Output, OutputKind, Run, Tracker, working_for
from vscrapy_magic.store.keys import MemberToken
from vscrapy_magic.store.messages import Lease, LeaseKind

NOW_S = 1000.0


def lease(number: int) -> Lease:
    return Lease(
        lease_id=number,
        kind=LeaseKind.REQUEST,
        origin=f"{number}.1",
        slot="s",
        payload=b"",
        attempt=1,
    )


@pytest.mark.parametrize(
    ("kind", "within_s"),
    [(OutputKind.ITEM, INTERVAL_MAX_S), (OutputKind.FAILURE, FAILURE_S)],
)
def test_a_slow_child_does_not_keep_a_failure_for_as_long_as_an_item(
    kind: OutputKind, within_s: float
) -> None:
    tracker, free = Tracker(), SimpleNamespace(next_release_at=lambda: None)
    host: Any = SimpleNamespace(active=lambda: 1, is_full=lambda: True)
    unused: Any = None
    stepper = Stepper(
        unused,
        MemberToken("m"),
        host,
        tracker=tracker,
        slots=free,  # type: ignore[arg-type]
        stats=unused,
        concurrency=1,
    )
    stepper.pace.rate, stepper._woken, stepper._sent_at = 1.0, False, NOW_S
    other, run = Run(lease(1)), Run(lease(2))
    for each in (other, run):
        tracker.begin(each)
        each.pending = 1
    with working_for(run):
        tracker.add(Output(kind, data=b"x", identity=b"x"))
    tracker.request_done(run)
    assert stepper._due(NOW_S) == pytest.approx(NOW_S + within_s)
