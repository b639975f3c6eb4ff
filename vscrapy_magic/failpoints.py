"""Owns the named fail-points: places where a test kills the process that passes them.

Runs in every process. `VSCRAPY_FAIL` holds `name` or `name:n` (the n-th time, from 1), or several
with commas between; the process that passes one of these places ends by SIGKILL, so nothing of
Python's own clean-up runs. Where it is unset, a fail-point costs one comparison.

Whoever is started in the place of the dead has the same variables, and would die as well. With
`VSCRAPY_FAIL_ONCE`, a folder, each place kills one process only: its id is then in a file there
that is named after the place.
"""

import itertools
import os
import signal
from pathlib import Path
from typing import Final

FAIL_VARIABLE: Final = "VSCRAPY_FAIL"
ONCE_VARIABLE: Final = "VSCRAPY_FAIL_ONCE"


def _parsed(text: str) -> dict[str, int]:
    """Which pass kills, by the name of the place."""
    wanted = (part.partition(":") for part in text.split(",") if part)
    return {name: int(nth or 1) for name, _, nth in wanted}


_wanted = _parsed(os.environ.get(FAIL_VARIABLE, ""))
_passed = {name: itertools.count(1) for name in _wanted}
_once = os.environ.get(ONCE_VARIABLE, "")


def fail_point(name: str) -> None:
    """Kill this process here when the environment asks for it; otherwise do nothing."""
    if _wanted and name in _wanted and next(_passed[name]) == _wanted[name] and _is_first(name):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_first(name: str) -> bool:
    """Whether nobody has died there yet, or how often does not matter."""
    if _once:
        try:
            with (Path(_once) / name).open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
    return True
