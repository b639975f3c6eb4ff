"""Owns the debugger's prompt in a terminal: with history, and completion of what may be typed.

Runs in the main thread of `vscrapy crawl` and `vscrapy runspider`.
"""

import re
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from vscrapy_magic.sender.terminal import Terminal

WORDS_MAX: Final = 2000  # words of the debugger's output that are completed
_WORD: Final = re.compile(r"[A-Za-z_]\w{2,}")
_COMMAND: Final = "do_"  # what methods of pdb that are commands begin with
_DELIMITERS: Final = " \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?."


class TerminalKeyboard:
    """The terminal that this process runs in; log lines wait while its user types."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._words: deque[str] = deque(maxlen=WORDS_MAX)
        self._commands: list[str] = []
        self._found: list[str] = []

    def say(self, text: str) -> None:
        self._words.extend(_WORD.findall(text))
        with self._terminal.held():
            sys.stdout.write(text)
            sys.stdout.flush()

    def ask(self, prompt: str) -> str:
        with self._terminal.held(), self._completion():
            try:
                return input(prompt)
            except (KeyboardInterrupt, EOFError):
                sys.stdout.write("\n")
                raise

    def press_enter(self) -> None:
        """Nothing: nobody but the user can press it here."""

    @contextmanager
    def _completion(self) -> Iterator[None]:
        try:
            import readline
        except ImportError:  # Python was built without it
            yield
            return
        before, delimiters = readline.get_completer(), readline.get_completer_delims()
        readline.set_completer(self._complete)
        readline.set_completer_delims(_DELIMITERS)
        readline.parse_and_bind("tab: complete")
        try:
            yield
        finally:
            readline.set_completer(before)
            readline.set_completer_delims(delimiters)

    def _complete(self, text: str, number: int) -> str | None:
        """The candidate of that number: a command of the debugger, or a word that it has shown."""
        if number == 0:
            known = {*self._names_of_commands(), *self._words}
            self._found = sorted(word for word in known if word.startswith(text))
        return self._found[number] if number < len(self._found) else None

    def _names_of_commands(self) -> list[str]:
        if not self._commands:
            import pdb

            kind: Any = pdb.Pdb
            self._commands = [
                name.removeprefix(_COMMAND) for name in dir(kind) if name.startswith(_COMMAND)
            ]
        return self._commands


def is_terminal() -> bool:
    """Whether a user can type here, and read what is asked."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
