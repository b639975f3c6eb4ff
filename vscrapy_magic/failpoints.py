"""Owns the named fail-points: places where a test kills the process that passes them.

Runs in every process. `VSCRAPY_FAIL` holds `name` or `name:n` (the n-th time, from 1); the process
that passes that place ends by SIGKILL, so nothing of Python's own clean-up runs. Where it is unset,
a fail-point costs one comparison.
"""

import itertools
import os
import signal
from typing import Final

FAIL_VARIABLE: Final = "VSCRAPY_FAIL"

_wanted, _, _nth = os.environ.get(FAIL_VARIABLE, "").partition(":")
_passed = itertools.count(1)


def fail_point(name: str) -> None:
    """Kill this process here when the environment asks for it; otherwise do nothing."""
    if _wanted and name == _wanted and next(_passed) == int(_nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
