"""Owns the debugger's prompt in a child: the standard pdb, for shipped code, on a foreign terminal.

Runs in whatever thread of a child a breakpoint is met. Differs from pdb where pdb would end the
program or lead out of the user's own code:

- It stops at the breakpoint itself with every Python (before 3.13 pdb stops a line later).
- Stepping stays in the user's code. Over an `await` or a `yield` the event loop goes on, and the
  prompt is back when the code is. When the code that it stands in returns to Scrapy, the crawl goes
  on as after `c`; pdb would lead through Scrapy and Twisted.
- Nothing that is typed raises in the code: `q` leaves the debugger, and the code goes on.
"""

import code
import contextlib
import dis
import io
import logging
import pdb
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, NoReturn

logger = logging.getLogger(__name__)

SHOWN_S: Final = 0.5  # what a statement at the prompt prints is shown after that while it runs
SHOWN_CHARS: Final = 64_000  # or when it is so much
_INSTRUCTION_BYTES: Final = 2
_SUSPENDS: Final = dis.opmap["YIELD_VALUE"]  # also where a coroutine waits


class Terminal(io.TextIOBase):
    """What the debugger takes for its terminal.

    Args:
        show: gets text, and the prompt that ends it when the debugger waits for a line.
        hear: waits for a line; empty for the end of input.
    """

    def __init__(self, show: Callable[[str, str | None], None], hear: Callable[[], str]) -> None:
        super().__init__()
        self._show = show
        self._hear = hear
        self._thread = threading.get_ident()
        self._written: list[str] = []
        self._chars = 0
        self._since = 0.0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        now = monotonic()
        self._since = self._since if self._written else now
        self._written.append(text)
        self._chars += len(text)
        is_due = self._chars > SHOWN_CHARS or now - self._since > SHOWN_S
        if is_due and threading.get_ident() == self._thread:
            # A last piece of a line may be a prompt, which is shown as such.
            shown, line_break, rest = self.take().rpartition("\n")
            if len(rest) > SHOWN_CHARS:
                shown, line_break, rest = shown + line_break + rest, "", ""
            self._show(shown + line_break, None)
            if rest:
                self.write(rest)
        return len(text)

    def take(self) -> str:
        """What was written and not shown yet."""
        text, self._written, self._chars = "".join(self._written), [], 0
        return text

    def readline(self, _size: int | None = -1) -> str:  # type: ignore[override]
        text, line_break, prompt = self.take().rpartition("\n")
        self._show(text + line_break, prompt)
        return self._hear()

    def close(self) -> None:
        """Nothing: `exit()` closes it, and the debugger goes on."""


class Console(code.InteractiveConsole):
    """The `interact` command."""

    def __init__(self, names: dict[str, Any], terminal: Terminal) -> None:
        for name in ("exit", "quit"):
            names.setdefault(name, self._leave)
        super().__init__(names)
        self._terminal = terminal

    def _leave(self, *_: object) -> NoReturn:
        raise SystemExit

    def raw_input(self, prompt: str = "") -> str:
        self._terminal.write(prompt)
        line = self._terminal.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def write(self, data: str) -> None:
        self._terminal.write(data)

    def run(self) -> None:
        """Until `exit()`, or the end of input."""
        with (
            contextlib.redirect_stdout(self._terminal),
            contextlib.redirect_stderr(self._terminal),
            contextlib.suppress(SystemExit),
        ):
            self.interact(banner="*interactive* (exit() ends it)", exitmsg="")


class Prompt(pdb.Pdb):
    """The debugger of one thread.

    Args:
        enter: called before each prompt; False when there shall be none.
        leave: called after each, with whether the debugger waits for the code to come by again.
        returned: called when the code that it stood in has returned.

    Attributes:
        is_open: whether somebody is asked at this moment.
        is_left: whether its user wants to see no breakpoint again.
    """

    def __init__(
        self,
        terminal: Terminal,
        enter: Callable[[FrameType | None, TracebackType | None], bool],
        leave: Callable[[bool], None],
        returned: Callable[[], None],
    ) -> None:
        streams: Any = terminal
        super().__init__(stdin=streams, stdout=streams, nosigint=True, readrc=False)
        self._terminal = terminal
        self._enter = enter
        self._leave = leave
        self._returned = returned
        self._folder = f"{Path.cwd()}/"
        self._stepping = False
        self._first: FrameType | None = None
        self._files: set[str] = set()
        self._ahead: tuple[CodeType, int] | None = None  # the line that the code goes on with
        self._raises: FrameType | None = None
        self.is_open = False
        self.is_left = False

    # Where it stops.

    def stop_at(self, frame: FrameType) -> None:
        """Ask at this frame, as soon as it goes on.

        At its next instruction and not from here: only what is typed while a frame is traced can
        change its variables (before 3.13) and the line that it goes on with.
        """
        ahead, self._ahead = self._ahead, None
        if ahead == (frame.f_code, frame.f_lineno):
            return  # the user has just been asked before this very line
        self.reset()
        self.botframe = _bottom(frame)
        self._files.add(frame.f_code.co_filename)
        self._first = frame
        frame.f_trace_opcodes = True
        above: FrameType | None = frame
        while above is not None:
            if self.is_own(above):
                above.f_trace = self.trace_dispatch
            above = above.f_back
        sys.settrace(self.trace_dispatch)

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame is not self._first:
            return super().trace_dispatch(frame, event, arg)
        self._first = None
        frame.f_trace_opcodes = False
        self.interaction(frame, None)
        self._ahead = None  # it is in the middle of its line
        return self.trace_dispatch

    def stop_after(self, trace: TracebackType) -> None:
        """Ask at the innermost of the user's frames of an exception."""
        self.reset()
        before = sys.gettrace()
        sys.settrace(None)
        try:
            self.interaction(None, trace)
        finally:
            sys.settrace(before)

    def interaction(self, frame: FrameType | None, *rest: Any) -> None:
        """Ask until the code may go on; whatever fails here, it does."""
        if self.is_open:
            return
        self.is_open = True
        self._stepping = False
        self._ahead = None if frame is None else (frame.f_code, frame.f_lineno)
        try:
            if self._enter(frame, rest[0] if rest else None):
                super().interaction(frame, *rest)
            else:
                self.set_continue()
        except BaseException:  # also what is raised at the prompt to end the process
            logger.exception("The debugger failed, the code goes on")
            self.set_continue()
        finally:
            self.is_open = False
            self._stepping &= frame is not None  # through what has failed nobody steps
            self._leave(self._stepping)

    def is_own(self, frame: FrameType) -> bool:
        """Whether a frame runs the user's code: what was shipped, or has a breakpoint."""
        if frame.f_code.co_filename in self._files:
            return True
        # Also of cells. What this process was started with may be named `__main__`, too.
        return str(frame.f_globals.get("__file__")).startswith(self._folder)

    def stop_here(self, frame: FrameType) -> bool:
        return self._stepping and self.is_own(frame) and super().stop_here(frame)

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """Go on when the outermost code of the user's has returned; it may only be suspended."""
        trace = super().dispatch_return(frame, arg)
        if not self._stepping or self.stopframe not in {None, frame}:
            return trace
        if _is_suspended(frame) and self._raises is not frame:
            return trace
        above = frame.f_back
        while above is not None:
            if self.is_own(above):
                return trace
            above = above.f_back
        self._stepping = False
        self.set_continue()
        self._returned()
        return trace

    def dispatch_line(self, frame: FrameType) -> Any:
        self._raises = None
        return super().dispatch_line(frame)

    def dispatch_exception(self, frame: FrameType, arg: Any) -> Any:
        self._raises = frame  # when it returns next, it is not suspended
        return super().dispatch_exception(frame, arg)

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> Any:
        """The stack from the user's outermost frame on."""
        stack, place = super().get_stack(f, t)
        own = [number for number, (each, _) in enumerate(stack) if self.is_own(each)]
        if not own:
            return stack, place
        return stack[own[0] :], (place if t is None else own[-1]) - own[0]

    def canonic(self, filename: str) -> str:
        """Cells and shipped files have the names that tracebacks have, and no paths of here."""
        name = filename.removeprefix(self._folder)
        return super().canonic(name) if Path(name).is_absolute() else name

    # Commands.

    def set_step(self) -> None:
        self._stepping = True
        super().set_step()

    def set_next(self, frame: FrameType) -> None:
        self._stepping = True
        super().set_next(frame)

    def set_until(self, frame: FrameType, lineno: int | None = None) -> None:
        self._stepping = True
        super().set_until(frame, lineno)

    def set_return(self, frame: FrameType) -> None:
        self._stepping = True
        super().set_return(frame)

    def set_continue(self) -> None:
        self._stepping = False
        super().set_continue()

    def do_quit(self, arg: str) -> bool:  # noqa: ARG002 - named so in pdb
        """q(uit)

        Leave the debugger. The code goes on, and no breakpoint of this crawl stops again.
        """
        self.is_left = True
        self.clear_all_breaks()
        self.set_continue()
        return True

    do_q = do_exit = do_quit

    def do_EOF(self, arg: str) -> bool:
        """EOF

        As quit.
        """
        return self.do_quit(arg)

    def do_run(self, arg: str) -> None:  # noqa: ARG002
        """run

        Not here: one request of a crawl cannot be started anew.
        """
        self.message("*** not here: `c` goes on, `q` leaves the debugger")

    do_restart = do_run

    def do_interact(self, arg: str) -> None:  # noqa: ARG002
        """interact

        Start an interactive interpreter with the names of the current frame.
        """
        names = {**self.curframe.f_globals, **self.curframe_locals}  # type: ignore[union-attr]
        Console(names, self._terminal).run()

    def do_debug(self, arg: str) -> Any:
        """debug code

        Step through an expression or statement.
        """
        # The inner debugger is pdb's own, which takes the interrupt for itself.
        is_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT)
        try:
            return super().do_debug(arg)
        finally:
            pdb.Pdb._previous_sigint_handler = None  # type: ignore[attr-defined]
            if is_main:
                signal.signal(signal.SIGINT, handler)


def _bottom(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame that is being left will be entered again: a generator or a coroutine.

    Python until 3.12 says that it is at the instruction, later ones that it is at the next one.
    """
    instructions, at = frame.f_code.co_code, frame.f_lasti
    return _SUSPENDS in {instructions[at], instructions[max(0, at - _INSTRUCTION_BYTES)]}
