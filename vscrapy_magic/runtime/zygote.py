"""Owns the process that children are forked from: single-threaded, with everything imported.

Run as `python -m vscrapy_magic.runtime.zygote FD [FOLDER]` by a supervisor, in a session of its
own; FD is its end of a SOCK_SEQPACKET pair, and in FOLDER it listens to senders of this machine
(`inspections.py`). It says when it can fork, or why it never will. It has no reactor and no second
thread, and looks before each fork. It ends with the socket. The children do not depend on it: they
end with the control pipe, whose other end their supervisor holds. A child that exited stays a
zombie until the supervisor says REAP, so that its process id cannot become somebody else's while
the supervisor may still use it.
"""

import atexit
import contextlib
import ctypes
import gc
import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import (
    FORK_FDS,
    ZYGOTE_BYTES,
    Answer,
    Ask,
    ExitCode,
    FromZygote,
    ToZygote,
)

if TYPE_CHECKING:
    from vscrapy_magic.runtime.inspections import Inspections

_TASKS: Final = Path("/proc/self/task")
_REACTOR: Final = "twisted.internet.reactor"
_CHILD_CRASHED: Final = 70  # of our own code, before or after the child's own life
_IMPORTS_FAILED: Final = 71
Life = Callable[[ChildOrder], int]
_SIGNALS_RESET: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)


class Zygote:
    """Serves one supervisor; `serve` returns when the supervisor is gone.

    Args:
        live: what a forked process does: its order in, its exit code out.
        inspect_in: folder of a local cluster: its senders may ask for inspections; None for none.
    """

    def __init__(self, ours: socket.socket, live: Life, inspect_in: Path | None = None) -> None:
        self._socket = ours
        self._live = live
        self._inspect_in = inspect_in
        self._inspections: Inspections | None = None
        self._pids: set[int] = set()
        self._exited: set[int] = set()
        self._signalled, self._signal = os.pipe()
        for fd in (self._signalled, self._signal):
            os.set_blocking(fd, False)

    def serve(self) -> None:
        """Say that it can fork; fork, and tell of exits, until the socket ends."""
        reason = unsafe()
        if self._inspect_in is not None and not reason:
            self._open_to_senders(self._inspect_in)
        self._answer(FromZygote(Answer.REFUSED if reason else Answer.READY, text=reason))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._signal, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._signalled, select.POLLIN)
        inspections = self._inspections
        if inspections is not None:
            poll.register(inspections.socket, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._signalled:
                    os.read(fd, ZYGOTE_BYTES)
                    self._look_for_exits()
                elif inspections is not None and fd == inspections.socket.fileno():
                    inspections.take()
                elif not self._take():
                    if inspections is not None:
                        inspections.close()
                    return

    def _open_to_senders(self, folder: Path) -> None:
        from vscrapy_magic.runtime.inspections import Inspections
        from vscrapy_magic.store.environment import environment_id

        with contextlib.suppress(OSError):  # the folder is gone; senders read sources themselves
            self._inspections = Inspections(folder, environment_id(), self._leave_zygote)

    def _take(self) -> bool:
        """Work in one message; False at the end of the socket."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, ZYGOTE_BYTES, len(FORK_FDS))
        except ConnectionResetError:
            return False  # the supervisor went without reading all answers
        if not data:
            return False
        try:
            asked = msgspec.msgpack.decode(data, type=ToZygote)
        except msgspec.MsgspecError:
            asked = None  # of a newer supervisor
        if asked is not None and asked.ask is Ask.REAP:
            self._reap(asked.number)
        elif asked is not None and asked.order is not None and len(fds) == len(FORK_FDS):
            self._fork(asked.number, asked.order, dict(zip(FORK_FDS, fds, strict=True)))
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, number: int, order: ChildOrder, fds: dict[str, int]) -> None:
        if reason := unsafe():
            self._answer(FromZygote(Answer.REFUSED, number=number, text=reason))
            return
        fail_point("zygote_before_fork")
        pid = os.fork()
        if pid == 0:
            self._become(order, fds)
        fail_point("zygote_after_fork")
        self._pids.add(pid)
        self._answer(FromZygote(Answer.FORKED, number=number, pid=pid))

    def _become(self, order: ChildOrder, fds: dict[str, int]) -> NoReturn:
        """In the new process: be a child, and nothing of the zygote."""
        code = _CHILD_CRASHED
        try:
            self._leave_zygote()
            if self._inspections is not None:
                self._inspections.leave()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (fds["stdout"], 1), (fds["stderr"], 2)):
                os.dup2(source, target)
                os.close(source)
            random.seed()
            gc.enable()
            code = self._live(
                msgspec.structs.replace(
                    order,
                    control_fd=fds["control"],
                    report_fd=fds["report"],
                    mark_fd=fds["mark"],
                )
            )
            _leave()
        except BaseException:  # noqa: BLE001 - nothing may return into the zygote's own stack
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _leave_zygote(self) -> None:
        """In a new process: give up what is the zygote's alone."""
        os.setsid()
        del sys.argv[1:]  # user code may look for words of its own there
        signal.set_wakeup_fd(-1)
        for signum in _SIGNALS_RESET:
            signal.signal(signum, signal.SIG_DFL)
        self._socket.close()
        for fd in (self._signalled, self._signal):
            os.close(fd)

    def _look_for_exits(self) -> None:
        if self._inspections is not None:
            self._inspections.look_for_exits()
        for pid in self._pids - self._exited:
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            fail_point("zygote_before_exit_told")
            self._exited.add(pid)
            killed = found.si_code in {os.CLD_KILLED, os.CLD_DUMPED}
            code = -found.si_status if killed else found.si_status
            self._answer(FromZygote(Answer.EXITED, pid=pid, code=code))

    def _reap(self, pid: int) -> None:
        if pid in self._exited:
            os.waitpid(pid, 0)
            self._exited.discard(pid)
            self._pids.discard(pid)

    def _answer(self, answer: FromZygote) -> None:
        _send(self._socket, answer)


def _send(ours: socket.socket, answer: FromZygote) -> None:
    # A supervisor that is gone is noticed by the next read.
    with contextlib.suppress(OSError):
        ours.send(msgspec.msgpack.encode(answer))


def unsafe() -> str:
    """Why this process must not fork; empty when it may."""
    threads = max(threading.active_count(), len(list(_TASKS.iterdir())) if _TASKS.exists() else 1)
    if threads > 1:
        return f"the zygote has {threads} threads: something that was imported started them"
    if _REACTOR in sys.modules:
        return "the zygote has a reactor: something that was imported installed it"
    return ""


def _leave() -> None:
    """What the interpreter does at its end, for a process that ends without it."""
    atexit._run_exitfuncs()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def main() -> int:
    """Entry point of `python -m vscrapy_magic.runtime.zygote FD [FOLDER]`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ours = socket.socket(fileno=int(sys.argv[1]))
    # As the manual of gc advises before forks: garbage of imports is small, looking for it is not.
    gc.disable()
    try:
        live = prepare()
    except BaseException as exc:  # noqa: BLE001 - whatever an installed package raises
        text = "".join(traceback.format_exception(exc))[-ZYGOTE_BYTES // 2 :]
        _send(ours, FromZygote(Answer.FAILED, text=text))
        return _IMPORTS_FAILED
    gc.freeze()
    Zygote(ours, live, Path(sys.argv[2]) if sys.argv[2:] else None).serve()
    return ExitCode.DONE


def prepare() -> Life:
    """Import and warm up what a child needs; here, so that what goes wrong can be told."""
    from vscrapy_magic.runtime.child import run_child
    from vscrapy_magic.runtime.warm import warm

    warm()
    return run_child


if __name__ == "__main__":
    sys.exit(main())
