"""Owns the inspections that senders of the local cluster ask a zygote for: one fork for each.

Runs in the zygote, and in the forked processes. The zygote itself reads nothing that a sender says,
so none can keep it; a forked process takes over what a process that the sender had started would
have of it (working folder, environment variables, umask, standard streams), and ends with it.
"""

import contextlib
import gc
import os
import random
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import psutil

from vscrapy_magic.runtime.inspect import look
from vscrapy_magic.store.inquiry import (
    DECLINED,
    END,
    Inquiry,
    address,
    addresses,
    hear,
    needs_start,
)

_BACKLOG: Final = 16
_FAILED: Final = 70  # of our own code
_ASKER_GONE: Final = 71


class Inspections:
    """Where senders ask; used by the zygote's loop.

    Args:
        folder: the local cluster's.
        forked: called first in a forked process: gives up what is the zygote's alone.
    """

    def __init__(self, folder: Path, environment: str, forked: Callable[[], None]) -> None:
        self._path = address(folder, environment)
        for left in addresses(folder, environment):
            if not psutil.pid_exists(int(left.suffix[1:])):
                left.unlink(missing_ok=True)  # of one that was killed
        self._forked = forked
        self._asked: dict[int, socket.socket] = {}
        self.socket: Final = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self._path))
        self._path.chmod(0o600)
        self.socket.listen(_BACKLOG)
        self.socket.setblocking(False)

    def take(self) -> None:
        """Let a process of its own hear one sender."""
        try:
            asking, _ = self.socket.accept()
        except OSError:
            return  # it is gone already
        pid = os.fork()
        if pid == 0:
            self._inspect(asking)
        self._asked[pid] = asking

    def look_for_exits(self) -> None:
        """Tell senders how the processes that they asked for have ended."""
        for pid, asking in list(self._asked.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._asked[pid]
                with asking, contextlib.suppress(OSError):
                    asking.setblocking(False)
                    asking.send(b"%d" % os.waitstatus_to_exitcode(status))

    def leave(self) -> None:
        """In a forked process: give up what is the zygote's alone."""
        self.socket.close()
        for asking in self._asked.values():
            asking.close()

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self.leave()

    def _inspect(self, asking: socket.socket) -> NoReturn:
        """In the new process: answer, and end."""
        code = _FAILED
        try:
            self._forked()
            self.leave()
            asking.setblocking(True)
            gc.enable()
            code = _answer(asking)
        except (OSError, ValueError, EOFError, msgspec.MsgspecError):
            pass  # whoever asks has gone, or is no sender of ours
        except BaseException:  # noqa: BLE001 - nothing may return into the zygote's own stack
            traceback.print_exc()
        finally:
            os._exit(code)


def _answer(asking: socket.socket) -> int:
    inquiry, printing_fd = hear(asking)
    is_alike = needs_start(inquiry.variables) == needs_start(dict(os.environ))
    if not (is_alike and _become(inquiry, printing_fd)):
        asking.sendall(DECLINED + END)
        return 0
    threading.Thread(target=_end_with, args=(asking,), name="asker", daemon=True).start()
    asking.sendall(msgspec.json.encode(look(inquiry.source)) + END)
    return 0


def _become(inquiry: Inquiry, printing_fd: int) -> bool:
    """Have what a process that the sender had started would have; False when that cannot be."""
    here = str(Path.cwd())
    try:
        os.chdir(inquiry.folder)
    except OSError:
        return False
    sys.path[:] = [folder for folder in sys.path if folder not in {"", here}]
    os.umask(inquiry.umask)
    os.environ.clear()
    os.environ.update(inquiry.variables)
    time.tzset()
    tempfile.tempdir = None
    random.seed()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (printing_fd, 1), (printing_fd, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(printing_fd)
    return True


def _end_with(asking: socket.socket) -> None:
    """User code may run for long; nobody waits for it when the sender has been interrupted."""
    with contextlib.suppress(OSError):
        asking.recv(1)
    os._exit(_ASKER_GONE)
