"""Owns the thread of a child that listens to its supervisor.

End of file means that the supervisor is gone: the process ends at once, whatever its event loop
does. A ping is answered by the event loop, because that is what it asks after; where the main
thread is, is told by this thread, because the main one may never come back.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Final, NoReturn

import msgspec

from vscrapy_magic.runtime.report import Reporter
from vscrapy_magic.runtime.stack import main_stack
from vscrapy_magic.store.pipes import Command, ExitCode, FrameReader, ToChild, read_command

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024


class Control:
    """Reads commands; hands them to the event loop once there is one.

    Args:
        handle: called in the event loop for every command but STACK.
        stops: called at once, in this thread, when the child is to stop: its event loop may stand
            still in the debugger.
    """

    def __init__(
        self,
        fd: int,
        handle: Callable[[ToChild], None],
        reporter: Reporter,
        stops: Callable[[], None] = lambda: None,
    ) -> None:
        self._fd = fd
        self._handle = handle
        self._stops = stops
        self._reporter = reporter
        self._lock = threading.Lock()
        self._post: Callable[..., object] | None = None
        self._waiting: list[ToChild] = []
        if fd >= 0:
            threading.Thread(target=self._listen, name="vscrapy-control", daemon=True).start()

    def loop_runs(self, post: Callable[..., object]) -> None:
        """From now on commands are handled; `post` may be called from any thread."""
        with self._lock:
            self._post = post
            waiting, self._waiting = self._waiting, []
        for command in waiting:
            post(self._handle, command)

    def _listen(self) -> NoReturn:
        reader = FrameReader()
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
                bodies = reader.feed(data)
            except (OSError, ValueError):
                data, bodies = b"", []
            if not data:
                os._exit(ExitCode.PARENT_GONE)
            for body in bodies:
                self._take(body)

    def _take(self, body: bytes) -> None:
        try:
            command = read_command(body)
        except msgspec.MsgspecError:
            # A newer supervisor may know commands that this child does not.
            logger.debug("A command of an unknown kind was skipped")
            return
        if command.command is Command.STACK:
            self._reporter.stack(*main_stack())
            return
        if command.command is Command.STOP:
            self._stops()
        with self._lock:
            post = self._post
            if post is None:
                self._waiting.append(command)
                return
        post(self._handle, command)
