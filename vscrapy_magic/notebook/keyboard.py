"""Owns the debugger's prompt below a cell; runs in the kernel's main thread.

A box of `input()` that nobody needs any more has to be answered, not left: what is typed into it
later goes to the next `input()` of any cell, and the page refuses to run other cells. The panel's
page can press Enter in it; a front end without that page gets an interrupt (`sender/attending.py`).
"""

import contextlib


class CellKeyboard:
    """The output of the cell that runs, and its input box.

    Args:
        screen: where the crawl is shown; a panel presses Enter.
    """

    def __init__(self, screen: object) -> None:
        self._screen = screen

    def say(self, text: str) -> None:
        print(text, end="", flush=True)  # noqa: T201 - the user waits for it

    def ask(self, prompt: str) -> str:
        return input(prompt)

    def press_enter(self) -> None:
        cancel = getattr(self._screen, "cancel_input", None)
        if cancel is not None:
            with contextlib.suppress(Exception):  # a page that cannot be reached: interrupted next
                cancel("")
