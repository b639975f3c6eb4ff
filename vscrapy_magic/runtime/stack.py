"""Owns where the main thread of a child is, as another thread of it sees it."""

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Final

FRAMES_SHOWN: Final = 30  # innermost ones
_FROZEN: Final = "<frozen"  # modules that are part of the interpreter


def main_stack() -> tuple[str, str]:
    """The line of the user's code that the main thread is in, and its stack, innermost last.

    The stack begins with the user's code; when none of it is running, the line is empty and the
    stack whole. Needs the interpreter: a C function that keeps it to itself keeps this waiting.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    stack = traceback.extract_stack(frame)
    folder = str(Path.cwd())
    own = [at for at, entry in enumerate(stack) if _is_users(entry.filename, folder)]
    shown = stack[own[0] if own else 0 :][-FRAMES_SHOWN:]
    text = "".join(traceback.format_list(shown)).rstrip()
    if not own:
        return "", text
    last = stack[own[-1]]
    name = last.filename.removeprefix(folder + os.sep)
    return f"{name}, line {last.lineno}, in {last.name}", text


def _is_users(filename: str, folder: str) -> bool:
    """Whether code is shipped: it has a name without a path, or a file in the child's folder."""
    if filename.startswith(folder + os.sep):
        return True
    return not (filename.startswith(_FROZEN) or Path(filename).is_absolute())
