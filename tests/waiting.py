"""Waiting for something to become true, without sleeping longer than needed."""

import time
from collections.abc import Callable


def wait_until(
    predicate: Callable[[], object], timeout_s: float, what: str | Callable[[], str] = ""
) -> None:
    """Return as soon as `predicate` is true; fail when it is not within `timeout_s`.

    Args:
        what: is waited for; a function says it when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout_s} s: {said or predicate}")
        time.sleep(0.01)
