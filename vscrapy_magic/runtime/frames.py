"""Owns what is told of a traceback: the frames that lie in the user's own code, and their locals.

Runs in the event loop of a child, and where a failed call is run again. The user's own code is what
was run as `__main__`, and files in the working folder, which holds what was shipped.
"""

import linecache
import reprlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from vscrapy_magic.store.failures import Frame

FRAMES_MAX: Final = 20  # innermost frames of the user's code
LOCALS_MAX: Final = 30  # variables of a frame

_REPR_CHARS: Final = 200
_REPR_ENTRIES: Final = 10  # of a container
_REPR_LEVELS: Final = 3


def _bounded_repr() -> reprlib.Repr:
    bounded = reprlib.Repr()
    bounded.maxstring = bounded.maxother = _REPR_CHARS
    bounded.maxlist = bounded.maxdict = bounded.maxset = bounded.maxtuple = _REPR_ENTRIES
    bounded.maxlevel = _REPR_LEVELS
    return bounded


_repr: Final = _bounded_repr()


def type_name(exc: Any) -> str:
    """Qualified name of an exception's class, as tracebacks have it."""
    kind = type(exc)
    if kind.__module__ in {"builtins", "__main__"}:
        return str(kind.__qualname__)
    return f"{kind.__module__}.{kind.__qualname__}"


def user_frames(trace: TracebackType | None) -> list[Frame]:
    """Frames of shipped code, outermost first: what was run as `__main__`, or lies beside it."""
    here = f"{Path.cwd()}/"
    found: deque[Frame] = deque(maxlen=FRAMES_MAX)
    while trace is not None:
        frame = trace.tb_frame
        name = frame.f_code.co_filename
        if is_own(frame):
            found.append(
                Frame(
                    file=name.removeprefix(here),
                    line=trace.tb_lineno,
                    function=frame.f_code.co_qualname,
                    source=linecache.getline(name, trace.tb_lineno).strip(),
                    locals=_locals(frame),
                )
            )
        trace = trace.tb_next
    return list(found)


def is_own(frame: FrameType) -> bool:
    """Whether a frame runs the user's code."""
    place = str(frame.f_globals.get("__file__"))  # code has the path in the bundle
    return frame.f_globals.get("__name__") == "__main__" or place.startswith(f"{Path.cwd()}/")


def place_of(frames: Sequence[Frame]) -> str:
    """The innermost of some frames in words: `Cell In[3], line 12, in Quotes.parse`."""
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.file}, line {last.line}, in {last.function}"


def _locals(frame: FrameType) -> dict[str, str]:
    shown = {}
    for name, value in list(frame.f_locals.items())[:LOCALS_MAX]:
        try:
            shown[name] = _repr.repr(value)
        except Exception as exc:  # noqa: BLE001 - a repr of the user's own may raise anything
            shown[name] = f"<its repr raised {type(exc).__name__}>"
    return shown
