"""Owns exceptions that nobody waited for: of tasks, Deferreds, threads, and of dropped generators.

Runs in the event loop of a child, but for hooks of threads. Each hook tells what it learnt and then
lets the one before it do what it does: lines in the log stay as they are.
"""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from scrapy.utils.reactor import is_asyncio_reactor_installed
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from vscrapy_magic.runtime.capture import error_of
from vscrapy_magic.runtime.frames import own_frame

_DEFERREDS: Final = "twisted.internet.defer"  # the name under which Twisted logs unhandled errors

# An exception, the name of what raised it, and the context that it ran in, where that is known.
Tell = Callable[[BaseException, str, contextvars.Context | None], None]


class Strays:
    """Hooks of one child.

    Args:
        tell: called in the event loop.
        post: calls a function in the event loop, from any thread.
    """

    def __init__(self, tell: Tell, post: Callable[..., object]) -> None:
        self._tell = tell
        self._post = post
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_handler: Any = None
        self._unraisable: Any = None
        self._in_thread: Any = None
        self._observer: Any = self._of_twisted

    def listen(self) -> None:
        """Set the hooks; the reactor must be there."""
        if is_asyncio_reactor_installed():
            self._loop = asyncio.get_event_loop()
            self._loop_handler = self._loop.get_exception_handler()
            self._loop.set_exception_handler(self._of_loop)
        globalLogPublisher.addObserver(self._observer)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._of_interpreter
        self._in_thread, threading.excepthook = threading.excepthook, self._of_thread

    def close(self) -> None:
        """Take the hooks away. Idempotent."""
        if self._in_thread is None:
            return
        if self._loop is not None:
            self._loop.set_exception_handler(self._loop_handler)
        globalLogPublisher.removeObserver(self._observer)
        sys.unraisablehook = self._unraisable
        threading.excepthook, self._in_thread = self._in_thread, None

    def _of_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, BaseException):
            task = context.get("task") or context.get("future")
            self._tell(exc, _task_name(task), _context_of(task))
        if self._loop_handler is not None:
            self._loop_handler(loop, context)
        else:
            loop.default_exception_handler(context)

    def _of_twisted(self, event: Any) -> None:
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            exc = error_of(failure)
            if event.get("log_namespace") == _DEFERREDS or own_frame(exc) is not None:
                self._tell(exc, "", None)

    def _of_interpreter(self, event: Any) -> None:
        exc = event.exc_value
        if exc is not None and own_frame(exc) is not None:
            name = getattr(event.object, "__qualname__", "")
            # A thread may have dropped it.
            self._post(self._tell, exc, str(name), None)
        self._unraisable(event)

    def _of_thread(self, event: Any) -> None:
        if event.exc_value is not None and own_frame(event.exc_value) is not None:
            name = "" if event.thread is None else event.thread.name
            self._post(self._tell, event.exc_value, name, None)
        if self._in_thread is not None:
            self._in_thread(event)


def _task_name(task: Any) -> str:
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
    return str(getattr(coroutine, "__qualname__", ""))


def _context_of(task: Any) -> contextvars.Context | None:
    """The context of a task, where the interpreter tells it (from 3.12 on)."""
    get: Any = getattr(task, "get_context", None)
    return get() if callable(get) else None
