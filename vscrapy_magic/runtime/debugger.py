"""Owns what happens in a child at a `breakpoint()`, and at the first failure of a `--pdb` crawl.

Runs in the thread that meets it, which stands still; in the main thread that is the event loop.
Then all that was not begun goes back to the frontier, with the downloader slots, so that the other
workers go on; the lease that is worked on stays, because the supervisor renews it. Clocks stand
still, too: what waits for a timeout has all of its time left afterwards. In other threads the event
loop goes on.

The prompt is the standard one (`prompt.py`); its terminal is a pair of keys in Redis, read by
whoever attends the crawl. Whatever happens here, user code goes on as if it had not met it.
"""

import logging
import os
import pdb
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final

from vscrapy_magic.errors import StoreError
from vscrapy_magic.runtime.crawl import LeasedCrawler, post
from vscrapy_magic.runtime.frames import is_own
from vscrapy_magic.runtime.prompt import Prompt, Terminal
from vscrapy_magic.runtime.report import Reporter
from vscrapy_magic.store.breakpoints import (
    Halt,
    HaltKind,
    Halts,
    Refusal,
    Said,
    SaidKind,
    entries_of,
)
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import ChildOrder, CrawlSpec, LeaseKind
from vscrapy_magic.store.pipes import Phase

logger = logging.getLogger(__name__)

BREAK_SETTING: Final = "VSCRAPY_BREAK_TIMEOUT"  # seconds; 0 for never
BREAK_TIMEOUT_S: Final = 600.0  # without input; then the code goes on
LOOK_S: Final = 0.5  # between two looks at whether the crawl is to stop
AWAY_S: Final = 60.0  # a store that is away for longer is not waited for
LEAVES: Final = "this worker leaves the crawl, or the debugger was left for good"
MASK: Final = "***"
_MASKED_CHARS_MIN: Final = 4  # as in log lines
_HELP: Final = (
    "h: commands; c: go on to the next breakpoint; q: go on, and stop at no breakpoint of this "
    "crawl again\n"
)


class Debugger:
    """The debugger of one child.

    Attributes:
        timeout_s: without input anywhere in the crawl, after which the code goes on; 0 for never.
        crawler: once there is one.
    """

    def __init__(self, order: ChildOrder, reporter: Reporter) -> None:
        self._order = order
        self._reporter = reporter
        self._spec: CrawlSpec | None = None
        self._threads = threading.local()
        self._passed: set[str] = set()
        self._is_off = False
        self._had_failure = False
        self._masked: tuple[str, ...] = ()
        self.timeout_s = BREAK_TIMEOUT_S
        self.crawler: LeasedCrawler | None = None

    def install(self, spec: CrawlSpec, hidden: Iterable[str]) -> None:
        """From now on `breakpoint()` and `pdb.set_trace()` of this process stop here.

        Args:
            hidden: values that are shown as `***`.
        """
        self._spec = spec
        secrets = (value for value in hidden if len(value) >= _MASKED_CHARS_MIN)
        self._masked = tuple(sorted(secrets, key=len, reverse=True))
        sys.breakpointhook = self._broken
        pdb.set_trace = self._broken

    def go_on_for_good(self) -> None:
        """Leave the debugger, and do not stop any more; from any thread."""
        self._is_off = True

    def _broken(self, *_args: object, **_more: object) -> None:
        frame = sys._getframe(1)
        if os.environ.get("PYTHONBREAKPOINT") == "0" or self._is_off:
            return
        self._quietly(lambda: self._stop_at(frame))

    def failed(self, exc: object) -> None:
        """User code has let an exception go; the first of the crawl is looked at with `--pdb`."""
        spec = self._spec
        if spec is None or not spec.pdb or self._had_failure or self._is_off:
            return
        trace = getattr(exc, "__traceback__", None)
        if trace is not None and _own_frame(trace) is not None:
            self._quietly(lambda: self._prompt(exc).stop_after(trace))

    def _quietly(self, stop: Callable[[], object]) -> None:
        """The code goes on, whatever happens in its debugger."""
        try:
            stop()
        except BaseException:  # also what is raised at the prompt to end the process
            sys.settrace(None)
            logger.exception("The debugger failed, the code goes on")

    def _stop_at(self, frame: FrameType) -> None:
        if self._spec is None or not self._spec.breaks:
            self._pass(frame, "nobody is there to type, or --no-break was given")
        else:
            prompt = self._prompt()
            if not prompt.is_open:  # else it was met by what was typed at the prompt
                prompt.stop_at(frame)

    def _pass(self, frame: FrameType, why: str) -> None:
        """Say once for each place why it does not stop."""
        place = place_of(frame)
        if place not in self._passed:
            self._passed.add(place)
            logger.warning("breakpoint at %s was passed: %s", place, why)

    def _prompt(self, exc: object = None) -> Prompt:
        """The prompt of this thread."""
        session: _Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = _Session(self)
        session.exc = exc
        return session.prompt

    # For sessions.

    @property
    def is_off(self) -> bool:
        return self._is_off

    @property
    def halts(self) -> Halts:
        return Halts(self.store, self._order.crawl_id)

    @cached_property
    def store(self) -> Store:
        """Connections of its own: those of the child belong to threads that work on."""
        return Store(self._order.url)

    def begin(self, frame: FrameType, exc: object) -> int:
        """List this child; 0 when it is not to stop."""
        kind = HaltKind.BREAKPOINT if exc is None else HaltKind.FAILURE
        url = self.subject()
        halt = Halt(self._order.worker, url, place_of(frame), kind)
        try:
            begun = self.halts.begin(self._order.token, halt, once=exc is not None)
        except StoreError as error:
            self._pass(frame, str(error))
            return 0
        if not isinstance(begun, Refusal):
            self._had_failure |= exc is not None
            return begun
        if begun is Refusal.OFF:
            self._is_off = True
        elif begun in {Refusal.GONE, Refusal.UNKNOWN}:
            self._pass(frame, "the child takes no part in the crawl yet")
        return 0

    def subject(self) -> str:
        """What the calling code works on: an address, or words."""
        crawler = self.crawler
        run = None if crawler is None else crawler.tracker.current()
        if run is None:
            return ""
        if run.lease.kind is not LeaseKind.REQUEST:
            return "start()" if run.lease.kind is LeaseKind.START else "spider_idle"
        return run.requests[0].url if run.requests else ""

    def banner(self, frame: FrameType, exc: object) -> str:
        """What a user sees first."""
        what = "breakpoint" if exc is None else f"{type(exc).__name__}: {exc}"
        subject = self.subject()
        of = f", {subject}" if subject else ""
        return f"{what} on {self._order.worker}{of}\n{place_of(frame)}\n{_HELP}"

    def hide(self, text: str) -> str:
        for secret in self._masked:
            text = text.replace(secret, MASK)
        return text

    def stand_still(self) -> Phase | None:
        """The main thread stops here; its phase until now. None in other threads."""
        if threading.current_thread() is not threading.main_thread():
            return None
        before = self._reporter.current_phase
        self._reporter.phase(Phase.DEBUGGING)
        host = getattr(self.crawler, "host", None)
        if host is not None:
            host.stepper.stand_still()
        return before

    def go_on(self, phase: Phase | None, stood_s: float) -> None:
        """The main thread goes on, in the phase that it was in."""
        if phase is None:
            return
        self._reporter.phase(phase)
        host = getattr(self.crawler, "host", None)
        if host is None:
            return
        from twisted.internet import reactor

        running: Any = reactor
        for call in running.getDelayedCalls():
            call.delay(stood_s)
        post(host.stepper.woken)


class _Session:
    """What one thread shows and hears; a halt begins with its first prompt.

    It lasts while the user steps, and ends when the code goes on.
    """

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger
        self._terminal = Terminal(self._show, self._hear)
        self.prompt: Final = Prompt(self._terminal, self._enter, self._leave, self._returned)
        self.exc: object = None
        self._number = 0
        self._shown = 0
        self._end = ""  # why the code goes on by itself
        self._phase: Phase | None = None
        self._since = 0.0
        self._open: ExitStack | None = None

    def _enter(self, frame: FrameType | None, trace: TracebackType | None) -> bool:
        debugger, self._phase = self._debugger, None
        at = frame or _own_frame(trace)
        if debugger.is_off or at is None:
            return False
        if not self._number:
            self._number = debugger.begin(at, self.exc)
            if not self._number:
                return False
            self._shown, self._end = 0, ""
            self._open = ExitStack()
            self._client = self._open.enter_context(debugger.store.blocking_client())
            logger.info("The debugger waits at %s", place_of(at))
            self._terminal.write(debugger.banner(at, self.exc))
        self._since = monotonic()
        self._phase = debugger.stand_still()
        return True

    def _leave(self, is_stepping: bool) -> None:
        if not self._number:
            return
        self._debugger.go_on(self._phase, monotonic() - self._since)
        if not is_stepping or self._end:
            self._close(self._end or "it goes on")

    def _returned(self) -> None:
        if self._number:
            self._close("the code has returned, it goes on")

    def _close(self, why: str) -> None:
        for_good = self.prompt.is_left and not self._end
        number, self._number = self._number, 0
        if for_good:
            self._debugger.go_on_for_good()
        self.prompt.is_left = False
        try:
            self._send(number, self._terminal.take(), SaidKind.TEXT)
            self._debugger.halts.end(number, Said(self._shown + 1, SaidKind.END, why), off=for_good)
        except StoreError as exc:
            logger.warning("Nobody could be told that the debugger was left: %s", exc)
        if self._open is not None:
            self._open.close()
        logger.info("The debugger was left: %s", why)

    def _show(self, text: str, prompt: str | None) -> None:
        if text:
            self._send(self._number, text, SaidKind.TEXT)
        if prompt is not None:
            self._send(self._number, prompt, SaidKind.PROMPT)

    def _send(self, number: int, text: str, kind: SaidKind) -> None:
        if self._end or (not text and kind is SaidKind.TEXT):
            return
        entries = entries_of(self._debugger.hide(text), kind, self._shown)
        self._shown = entries[-1].number
        if not self._patiently(lambda: self._debugger.halts.say(number, entries)):
            self._end = self._end or "this child was taken for dead"

    def _hear(self) -> str:
        """The next line; empty (the end of input) from the moment on when the code is to go on."""
        typed, since = -1, monotonic()
        while not self._end:
            if self._debugger.is_off:
                self._end = LEAVES
                break
            heard = self._patiently(
                lambda: self._debugger.halts.hear(self._client, self._number, LOOK_S)
            )
            if heard is None:
                self._end = self._end or LEAVES
                break
            if heard.goes_on:
                self._end = "it goes on"
            elif heard.line is not None:
                return str(heard.line)
            if heard.typed != typed:
                typed, since = heard.typed, monotonic()
            timeout_s = self._debugger.timeout_s
            if timeout_s and monotonic() - since > timeout_s:
                self._end = f"nobody typed anything for {timeout_s:g} s, it goes on"
                logger.warning("%s (%s)", self._end.capitalize(), BREAK_SETTING)
        return ""

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """What a call of the store returns; None when the store is away for long."""
        begun = monotonic()
        while not self._debugger.is_off:
            try:
                return call()
            except StoreError as exc:
                if monotonic() - begun > AWAY_S:
                    self._end = f"the debugger is left: {exc}"
                    return None
                threading.Event().wait(LOOK_S)
        return None


def place_of(frame: FrameType) -> str:
    """Where a frame is: `Cell In[3], line 12, in Quotes.parse`."""
    name = frame.f_code.co_filename.removeprefix(f"{Path.cwd()}/")
    return f"{name}, line {frame.f_lineno}, in {frame.f_code.co_qualname}"


def _own_frame(trace: TracebackType | None) -> FrameType | None:
    """The innermost frame of the user's code in a traceback."""
    found = None
    while trace is not None:
        if is_own(trace.tb_frame):
            found = trace.tb_frame
        trace = trace.tb_next
    return found
