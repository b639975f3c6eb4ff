"""Owns how a user sits at the prompt of a child in the debugger, in a cell or in a terminal.

Runs in the sender's main thread, which it blocks. What the child shows is text of others: control
characters are taken out, and nothing of it is evaluated. While `input()` waits for the user, a
thread watches whether the child is still there: one that was killed, or has gone on by itself, must
not leave a box behind, because what is typed into that would go to whoever asks next.
"""

import contextlib
import signal
import threading
from typing import Final, Protocol

from vscrapy_magic.errors import StoreError
from vscrapy_magic.sender.interrupts import Interrupts
from vscrapy_magic.sender.lines import clean_lines
from vscrapy_magic.store.breakpoints import Halt, Halts, Said, SaidKind, Screen
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId

LOOK_S: Final = 0.5  # between two looks at whether the child is still there
PRESSED_S: Final = 1.0  # for a page to answer the box in the user's place
PROMPT_CHARS_MAX: Final = 200


class Keyboard(Protocol):
    """Where a user reads and types."""

    def say(self, text: str) -> None:
        """Show a text that ends its lines itself; in the main thread."""

    def ask(self, prompt: str) -> str:
        """One line; raises as `input()` does. In the main thread."""

    def press_enter(self) -> None:
        """Answer in the user's place, where that is possible; from another thread."""


def attend(
    store: Store, crawl_id: CrawlId, keyboard: Keyboard, interrupts: Interrupts
) -> Halt | None:
    """Sit at the prompt of the child that has stood in the debugger for longest, until it goes on.

    Ends early with an interrupt, which `interrupts` has counted then.

    Returns:
        The halt; None when no child stands in the debugger.

    Raises:
        StoreError: the server does not answer; the child stands there still.
    """
    halts = Halts(store, crawl_id)
    standing = halts.standing()
    if not standing:
        return None
    halt = standing[0]
    with Screen(store, crawl_id, halt.number) as screen:
        _Attendance(halts, screen, halt, keyboard, interrupts).run()
    return halt


class _Attendance:
    """One user at one halt."""

    def __init__(
        self,
        halts: Halts,
        screen: Screen,
        halt: Halt,
        keyboard: Keyboard,
        interrupts: Interrupts,
    ) -> None:
        self._halts = halts
        self._screen = screen
        self._halt = halt
        self._keyboard = keyboard
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._is_asking = False
        self._is_stale = False
        self._returned = threading.Event()

    def run(self) -> None:
        interrupted = self._interrupts.count
        while self._interrupts.count == interrupted:
            said = self._screen.read(LOOK_S)
            if said is None:
                self._keyboard.say(
                    f"{self._halt.worker} is gone; what it worked on runs again elsewhere\n"
                )
                return
            for entry in said:
                self._show(entry)
            if said and said[-1].kind is SaidKind.END:
                return
            if said and said[-1].kind is SaidKind.PROMPT:
                self._answer(said[-1].text)

    def _show(self, entry: Said) -> None:
        if entry.kind is SaidKind.TEXT:
            self._keyboard.say(_clean(entry.text))
        elif entry.kind is SaidKind.END:
            self._keyboard.say(_clean(f"{self._halt.worker}: {entry.text}\n"))

    def _answer(self, prompt: str) -> None:
        """Let the user type one line, unless the child goes on before."""
        self._is_asking, self._is_stale = True, False
        self._returned.clear()
        watch = threading.Thread(target=self._watch, name="vscrapy-prompt", daemon=True)
        watch.start()
        try:
            is_typed, line = self._ask(_clean(prompt)[:PROMPT_CHARS_MAX])
            if is_typed:
                self._halts.type(self._halt.number, line)
        finally:
            self._returned.set()
            watch.join()

    def _ask(self, prompt: str) -> tuple[bool, str | None]:
        """Whether something was typed, and what; None for the end of input."""
        line: str | None = None
        is_typed = True
        with self._interrupts.raising():
            try:
                line = self._keyboard.ask(prompt)
            except EOFError:
                pass
            except KeyboardInterrupt:
                is_typed = False
                self._interrupts.count += not self._is_stale
            self._has_returned()
        if not (is_typed or self._is_stale):
            self._keyboard.press_enter()  # the box that was interrupted is still there
        return is_typed and not self._is_stale, line

    def _has_returned(self) -> None:
        """From now on the watch interrupts nothing; what it has sent so far arrives in here."""
        while self._is_asking:
            try:
                with self._lock:
                    self._is_asking = False
            except KeyboardInterrupt:
                self._interrupts.count += not self._is_stale

    def _watch(self) -> None:
        """In a thread: end the asking when what is asked has come to nothing."""
        while self._is_asking:
            try:
                if self._screen.waits_for_more(LOOK_S) or not self._screen.is_there():
                    break
            except StoreError:
                self._returned.wait(LOOK_S)
        if not self._is_asking:
            return
        self._is_stale = True
        self._keyboard.press_enter()
        self._returned.wait(PRESSED_S)
        with self._lock, contextlib.suppress(ValueError):
            if self._is_asking:
                # As a signal of the system: only that ends a read of the terminal.
                main = threading.main_thread().ident or 0
                signal.pthread_kill(main, signal.SIGINT)


def _clean(text: str) -> str:
    return "\n".join(clean_lines(text)) + "\n" * text.endswith("\n")
