"""Owns `%vdebug`: a failed call again in this kernel, and the debugger where it fails.

Runs in the kernel's main thread, or that of a program (`vs.debug`). The prompt is the shell's own
debugger (IPython's), at the innermost frame of the user's code. A call that needs an event loop
runs in a thread; its exception is looked at from here, and when it is to be entered its prompt is
brought here over two queues.
"""

import bdb
import contextlib
import pdb
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from IPython.core.interactiveshell import InteractiveShell

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.show import FailureText
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.messages import Bundle

if TYPE_CHECKING:
    from vscrapy_magic.runtime.replay import Call

_END: Final = None  # of the lines of a debugger


def debug(
    shell: InteractiveShell | None, crawl: Crawl, number: int = 0, *, enter: bool = False
) -> str:
    """Run a failed call again here, and open the debugger where it fails.

    Args:
        shell: whose debugger is used; None: Python's own.
        number: of the failure, from 1; 0: the newest.
        enter: open it at the first line of the call instead.

    Returns:
        What came of it, for the user.

    Raises:
        ConfigError: there is no such failure, or it cannot be run again.
    """
    from vscrapy_magic.runtime.guest import guest
    from vscrapy_magic.runtime.replay import NotReplayableError, prepare_call, rerun
    from vscrapy_magic.runtime.replaying import chosen, trusted_source

    number, record = chosen(crawl, number)
    bundle = trusted_source(crawl, record.code_version)

    title = f"failure {number}: {record.type}: {record.message}"
    try:
        with guest(bundle, crawl.view.spec) as loaded:
            if loaded.missing:
                _say(f"not set here, and on the worker: {', '.join(loaded.missing)}")
            if enter:
                _enter(shell, prepare_call(loaded, record))
                return f"{title}: the call has ended"
            done = rerun(loaded, record)
            if done.error is None:
                return _did_not_fail(number, record, len(done.outputs))
            if done.is_as(record):
                _say(f"{title}\nhere as on {record.worker}, at {done.place}")
            else:
                _say(f"{title}\non {record.worker} at {record.place or record.kind}; here it is:")
                _say(f"{type(done.error).__name__}: {done.error}, at {done.place}")
            _post_mortem(shell, done.error)
    except NotReplayableError as exc:
        return f"{title}\n{exc}\n{FailureText(number, record)!r}"
    return ""


def debug_page(
    shell: InteractiveShell | None,
    crawl: Crawl,
    page: str,
    edited: Callable[[Bundle], Bundle],
    *,
    enter: bool = False,
) -> str:
    """Call the spider as it is now with a recorded page, and open the debugger where that fails.

    Args:
        page: `p12`.
        edited: the source as it is now, for what was shipped.

    Returns:
        What came of it, for the user.

    Raises:
        ConfigError: there is no such page.
    """
    from vscrapy_magic.runtime.guest import guest
    from vscrapy_magic.runtime.replay import NotReplayableError, prepare_call, rerun
    from vscrapy_magic.runtime.replaying import chosen_page, trusted_source

    number, record = chosen_page(crawl, page)
    title = f"page {number}, {record.url}, with the spider as it is now"
    try:
        with guest(edited(trusted_source(crawl, record.code_version)), crawl.view.spec) as loaded:
            if enter:
                _enter(shell, prepare_call(loaded, record))
                return f"{title}: the call has ended"
            done = rerun(loaded, record)
            if done.error is None:
                return f"{title}: it does not fail; --enter stops at the call's first line"
            _say(f"{title}:\n{type(done.error).__name__}: {done.error}, at {done.place}")
            _post_mortem(shell, done.error)
    except NotReplayableError as exc:
        return f"{title}: {exc}"
    return ""


def can_ask(shell: InteractiveShell | None) -> bool:
    """Whether somebody is there to type at a prompt."""
    kernel: Any = getattr(shell, "kernel", None)
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))


def _did_not_fail(number: int, record: FailureRecord, count: int) -> str:
    why = "what it had on `self`, the time, or the machine made the difference"
    return (
        f"failure {number} does not come again here (the call brings {count} outputs): {why}. "
        f"What it was on {record.worker}:\n{FailureText(number, record)!r}"
    )


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the user waits for it


class _OfGuest:
    """Makes a debugger name cells and shipped files as tracebacks do; so it finds their lines."""

    def canonic(self, filename: str) -> str:
        if not Path(filename).is_absolute():
            return filename
        found: str = super().canonic(filename)  # type: ignore[misc]
        return found


class _AtOwnFrame(_OfGuest):
    """Makes a debugger start at the innermost frame of the user's code, and not in a library."""

    def get_stack(self, frame: FrameType | None, trace: TracebackType | None) -> Any:
        from vscrapy_magic.runtime.frames import is_own

        stack, place = super().get_stack(frame, trace)  # type: ignore[misc]
        own = [number for number, (each, _) in enumerate(stack) if is_own(each)]
        return stack, own[-1] if own and trace is not None else place


def _post_mortem(shell: InteractiveShell | None, error: BaseException) -> None:
    from vscrapy_magic.runtime.frames import own_frame

    seen = error  # one that was raised for another, in a library, is looked at where that one was
    while own_frame(seen) is None and (before := seen.__cause__ or seen.__context__) is not None:
        seen = before
    trace = seen.__traceback__
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if not can_ask(shell):  # an error as output would end a notebook that is run by a program
        _say("".join(traceback.format_exception(error)).rstrip())
        _say("nobody can type here; in a notebook with a keyboard the debugger opens now")
        return
    base: Any = pdb.Pdb if shell is None else shell.debugger_cls
    debugger = type("Debugger", (_AtOwnFrame, base), {})()
    debugger.reset()
    debugger.interaction(None, trace)


def _enter(shell: InteractiveShell | None, call: "Call") -> None:
    """Make a call, and stop at the first line of its function."""
    code = call.code

    def run() -> None:
        call.run([])

    if code is None:
        raise ConfigError("--enter: the call is no function of Python's; try without it")
    if not can_ask(shell):
        raise ConfigError("--enter: nobody can type here; try without it")
    if call.is_async:
        _entered_in_thread(code, run)
        return
    base: Any = pdb.Pdb if shell is None else shell.debugger_cls
    with _stopping_at(code, type("Debugger", (_OfGuest, base), {})()):
        _run_quietly(run)


def _run_quietly(run: Callable[[], None]) -> None:
    """Leaving the debugger is no error, and neither is the failure that was looked for."""
    try:
        run()
    except bdb.BdbQuit:
        pass
    except Exception as exc:  # noqa: BLE001 - it is the user's
        _say(f"{type(exc).__name__}: {exc}")


@contextlib.contextmanager
def _stopping_at(
    code: Any, debugger: Any, settrace: Callable[[Any], None] = sys.settrace
) -> Iterator[None]:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event != "call" or frame.f_code is not code:
            return None
        debugger.reset()
        debugger.set_step()
        debugger.botframe = frame
        frame.f_trace = debugger.trace_dispatch
        sys.settrace(debugger.trace_dispatch)
        return debugger.trace_dispatch

    settrace(trace)
    try:
        yield
    finally:
        settrace(None)


class _Pdb(_OfGuest, pdb.Pdb):
    """That of Python itself."""


class _Prompt:
    """The keyboard and the screen of a debugger in another thread."""

    def __init__(self) -> None:
        self.typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.shown: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def readline(self) -> str:
        return self.typed.get()

    def write(self, text: str) -> int:
        self.shown.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def _entered_in_thread(code: Any, run: Callable[[], None]) -> None:
    """The same for a call in a loop: its debugger lives there, and this thread is its terminal."""
    prompt = _Prompt()
    ends: Any = prompt
    debugger = _Pdb(stdin=ends, stdout=ends, nosigint=True)
    debugger.use_rawinput = False

    def work() -> None:
        try:
            with _stopping_at(code, debugger, threading.settrace):
                _run_quietly(run)
        finally:
            prompt.shown.put(_END)

    worker = threading.Thread(target=work, name="vscrapy-entered", daemon=True)
    worker.start()
    said = ""
    while (text := prompt.shown.get()) is not _END:
        said += text
        if said.endswith(debugger.prompt):
            _say(said.removesuffix(debugger.prompt).rstrip("\n"))
            said = ""
            try:
                prompt.typed.put(input(debugger.prompt) + "\n")
            except (KeyboardInterrupt, EOFError):
                prompt.typed.put("quit\n")
    worker.join()
    if said:
        _say(said.rstrip("\n"))
