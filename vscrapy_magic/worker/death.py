"""Owns what is told of a child that died of its own code: a failure with its last words.

Used by the supervisor's loop, and by the thread that buries. A process that crashed can say nothing
any more; what is known is the stack that the interpreter's fault handler wrote to stderr, the lines
before it, and the request that it worked on.
"""

import logging
import re
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec

from vscrapy_magic.store.failures import (
    FailureKind,
    FailureRecord,
    Frame,
    group_of,
    request_facts,
)
from vscrapy_magic.store.pipes import ExitCode
from vscrapy_magic.store.secrets import Hider

LOG_LINES: Final = 20
LOG_LINE_CHARS: Final = 300
STDERR_BYTES: Final = 32 * 1024  # the fault handler writes at most 100 frames
FRAMES_MAX: Final = 20
_FAULT: Final = b"Fatal Python error"
_TRACE: Final = "Traceback (most recent call last)"
_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+),? in (\S+)')


class LastWords:
    """The end of what a child has said so far."""

    def __init__(self) -> None:
        self.lines: Final[deque[str]] = deque(maxlen=LOG_LINES)
        self._stderr = b""
        self._trace = ""

    def hear_log(self, name: str, level: int, text: str) -> None:
        """A log record."""
        self.lines.append(f"[{name}] {logging.getLevelName(level)}: {text}"[:LOG_LINE_CHARS])
        if level >= logging.ERROR and _TRACE in text:
            self._trace = text

    def hear_stack(self, text: str) -> None:
        """Where it stood when it did not answer."""
        self._trace = text

    def hear_stderr(self, data: bytes) -> None:
        """What it wrote there."""
        self._stderr = (self._stderr + data)[-STDERR_BYTES:]

    def stack(self) -> tuple[str, bool]:
        """What tells where it was, and whether the innermost call stands first there."""
        at = self._stderr.rfind(_FAULT)
        if at >= 0:
            return self._stderr[at:].decode(errors="replace").rstrip(), True
        return self._trace, False


class Death(msgspec.Struct, frozen=True):
    """A death of a child's own making.

    Attributes:
        code: exit code, or minus the signal.
        how: in words.
        verdict: why it was killed, when it was.
        stack: see `LastWords.stack`.
        folder: where its code was.
        secrets: values that nothing may show.
    """

    kind: FailureKind
    code: int
    how: str
    verdict: str
    stack: tuple[str, bool]
    lines: tuple[str, ...]
    folder: Path
    worker: str
    code_version: int
    secrets: tuple[str, ...] = ()

    def record(self, payload: bytes, attempt: int, suspects: int) -> FailureRecord:
        """The failure.

        Args:
            payload: the request that it died of; empty when that is not known.
            suspects: how many requests it may have been.
        """
        hider = Hider(self.secrets)
        text, innermost_first = self.stack
        frames = self._frames(text, innermost_first=innermost_first)
        place = ""
        if frames:
            place = f"{frames[-1].file}, line {frames[-1].line}, in {frames[-1].function}"
        facts: dict[str, Any] = request_facts(payload) if payload else {}
        if facts:
            facts["url"] = hider.values(facts["url"])
            facts["request"] = hider.data(facts["request"])
        more = f"; it was one of {suspects} requests" if suspects > 1 else ""
        name = self._type()
        return FailureRecord(
            kind=self.kind,
            type=name,
            message=hider.text(f"the process {self.how}{more}"),
            traceback=hider.text(text),
            place=place,
            group=group_of(self.kind, name, place or facts.get("callback", "")),
            frames=tuple(frames),
            log=tuple(map(hider.text, self.lines)),
            worker=self.worker,
            attempt=attempt,
            code_version=self.code_version,
            time_ms=int(time.time() * 1000),
            **facts,
        )

    def _type(self) -> str:
        if self.kind is FailureKind.MEMORY:
            return "MemoryLimit"
        if self.verdict:
            return "Hang"
        if self.code < 0:
            return signal.Signals(-self.code).name
        return "SystemExit" if self.code == ExitCode.EXITED else f"exit code {self.code}"

    def _frames(self, text: str, *, innermost_first: bool) -> list[Frame]:
        """Frames of shipped code, outermost first."""
        found = [
            Frame(file.removeprefix(f"{self.folder}/"), int(line), function)
            for file, line, function in _FRAME.findall(text)
            if self._is_own(file)
        ]
        return (found[::-1] if innermost_first else found)[-FRAMES_MAX:]

    def _is_own(self, file: str) -> bool:
        """Whether code is shipped: it has a name without a path, or lies in the child's folder."""
        if file.startswith(f"{self.folder}/"):
            return True
        return not (file.startswith("<") or Path(file).is_absolute())
