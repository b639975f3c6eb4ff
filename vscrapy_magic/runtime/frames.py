"""Owns what is told of a traceback: the frames that lie in the user's own code, and their locals.

Runs in the event loop of a child, and where a failed call is run again. The user's own code is what
was run as `__main__`, and files in the working folder, which holds what was shipped.
"""

import linecache
import os
import reprlib
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Final

from vscrapy_magic.store.failures import Frame

FRAMES_MAX: Final = 20  # innermost frames of the user's code
LOCALS_MAX: Final = 30  # variables of a frame
CHAIN_MAX: Final = 10  # exceptions that are looked through for a line of the user's

_PACKAGE: Final = __package__
_REPR_CHARS: Final = 200
_REPR_ENTRIES: Final = 10  # of a container
_REPR_LEVELS: Final = 3
_LOOKED_AT: Final = 10 * _REPR_CHARS  # of a long text: secrets are sought before it is cut

Entry = tuple[FrameType, int]
Hide = Callable[[str], str]


class _BoundedRepr(reprlib.Repr):
    """Short reprs, without secrets."""

    def __init__(self, hide: Hide) -> None:
        super().__init__()
        self.maxstring = self.maxother = _REPR_CHARS
        self.maxlist = self.maxdict = self.maxset = self.maxtuple = _REPR_ENTRIES
        self.maxlevel = _REPR_LEVELS
        self._hide = hide

    def hidden(self, x: Any) -> str:
        """The repr of something; that of its parts does not show which of them are secret."""
        return self._hide(self.repr(x))

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(self._hide(_ends(x)), level)

    def repr_bytes(self, x: bytes, _level: int) -> str:
        return self._cut(self._hide(repr(_ends(x))))

    def repr_instance(self, x: Any, _level: int) -> str:
        try:
            return self._cut(self._hide(repr(x)))
        except Exception as exc:  # noqa: BLE001 - a repr of the user's own may raise anything
            return f"<its repr raised {type(exc).__name__}>"

    def _cut(self, text: str) -> str:
        if len(text) <= self.maxother:
            return text
        half = (self.maxother - 3) // 2
        return f"{text[:half]}...{text[-half:]}"


def _ends(long: Any) -> Any:
    """Both ends of a text; what lies between would not be shown."""
    return long if len(long) <= 2 * _LOOKED_AT else long[:_LOOKED_AT] + long[-_LOOKED_AT:]


def type_name(exc: Any) -> str:
    """Qualified name of an exception's class, as tracebacks have it."""
    kind = type(exc)
    if kind.__module__ in {"builtins", "__main__"}:
        return str(kind.__qualname__)
    return f"{kind.__module__}.{kind.__qualname__}"


def message_of(exc: Any) -> str:
    """Text of an exception, whatever its own code does."""
    try:
        return str(exc)
    except Exception as failed:  # noqa: BLE001 - a text of the user's own may raise anything
        return f"<its text raised {type(failed).__name__}>"


def user_frames(trace: TracebackType | None) -> list[Frame]:
    """Frames of shipped code, outermost first: what was run as `__main__`, or lies beside it."""
    return described(_own_entries(trace), hide=str)


def own_entries(exc: BaseException) -> list[Entry]:
    """Frames of the user's code that an exception went through, outermost first, and their lines.

    Of a group also those of its first exception; of one that was raised elsewhere, those of what it
    was raised for.
    """
    entries = _own_entries(exc.__traceback__)
    for _ in range(CHAIN_MAX):
        if isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
            entries += _own_entries(exc.__traceback__)
        elif not entries and (before := exc.__cause__ or exc.__context__) is not None:
            exc = before
            entries = _own_entries(exc.__traceback__)
        else:
            break
    return entries[-FRAMES_MAX:]


def own_frame(exc: BaseException) -> FrameType | None:
    """The outermost frame of the user's code that an exception itself went through."""
    entries = _own_entries(exc.__traceback__)
    return entries[0][0] if entries else None


def _own_entries(trace: TracebackType | None) -> list[Entry]:
    here = _here()
    found: deque[Entry] = deque(maxlen=FRAMES_MAX)
    while trace is not None:
        if _is_own(trace.tb_frame, here):
            found.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return list(found)


def described(entries: Sequence[Entry], *, hide: Hide, with_locals: bool = True) -> list[Frame]:
    """Frames as a record keeps them.

    Args:
        hide: takes secrets out of a text.
    """
    here = _here()
    bounded = _BoundedRepr(hide)
    return [
        Frame(
            file=frame.f_code.co_filename.removeprefix(here),
            line=line,
            function=frame.f_code.co_qualname,
            source=hide(linecache.getline(frame.f_code.co_filename, line).strip()),
            locals=_locals(frame, bounded) if with_locals else {},
        )
        for frame, line in entries
    ]


def is_own(frame: FrameType) -> bool:
    """Whether a frame runs the user's code."""
    return _is_own(frame, _here())


def _here() -> str:
    return f"{os.getcwd()}/"  # noqa: PTH109 - a Path costs ten times as much, for each failure


def _is_own(frame: FrameType, here: str) -> bool:
    names = frame.f_globals  # code has the path in the bundle
    if names.get("__name__") == "__main__":
        return names.get("__package__") != _PACKAGE  # a child started by hand is `__main__`, too
    return str(names.get("__file__")).startswith(here)


def place_of(frames: Sequence[Frame]) -> str:
    """The innermost of some frames in words: `Cell In[3], line 12, in Quotes.parse`."""
    if not frames:
        return ""
    last = frames[-1]
    return _in_words(last.file, last.line, last.function)


def place_in(entries: Sequence[Entry]) -> str:
    """The same for frames that are not described."""
    if not entries:
        return ""
    frame, line = entries[-1]
    code = frame.f_code
    return _in_words(code.co_filename.removeprefix(_here()), line, code.co_qualname)


def _in_words(file: str, line: int, function: str) -> str:
    return f"{file}, line {line}, in {function}"


def _locals(frame: FrameType, bounded: _BoundedRepr) -> dict[str, str]:
    shown = {}
    for name, value in list(frame.f_locals.items())[:LOCALS_MAX]:
        try:
            shown[name] = bounded.hidden(value)
        except Exception as exc:  # noqa: BLE001 - a repr of the user's own may raise anything
            shown[name] = f"<its repr raised {type(exc).__name__}>"
    return shown
