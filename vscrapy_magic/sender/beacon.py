"""Owns a session's heartbeat: a helper process that says that the session lives, or has ended.

Run by a sender as `python -m vscrapy_magic.sender.beacon`, in a session of its own, so that an
interrupt of the kernel's process group does not reach it; the address, with its password, comes on
standard input. `Beacon` is the sender's side of it.

It knows within milliseconds that its sender is gone, by two signs. A pipe from the sender ends; but
a process that the user's code forked keeps it open. A file descriptor of the sender's process
(pidfd) becomes readable; where the system has none, the process's parent changes, which is looked
for twice a second. A sender that is stopped, or computes without a break, is not gone. A thread in
the sender would beat too late: a regex that holds the interpreter kept one waiting for ten seconds.
"""

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError, StoreError, VscrapyError
from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.store.environment import helper_variables
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import SessionRecord

if TYPE_CHECKING:
    from vscrapy_magic.store.connection import Store

CLOSE_WITHIN_S: Final = 1.0  # a restarting kernel has 2 s in all; then the beacon tries on
TRY_FOR_S: Final = 60.0  # to tell that the sender is gone; later its deadline has said so
RETRY_S: Final = 1.0  # before a server that does not answer is asked again
_FIRST_RETRY_S: Final = 0.05  # a connection that broke long ago is noticed only when it is used
_BEATS_PER_TTL: Final = 4  # so many at least, where a TTL is short
_IMPORT_AFTER_S: Final = 1.0  # the driver takes 100 ms that the sender's first crawl needs more
_PARENT_LOOK_S: Final = 0.5  # where there is no pidfd
_END: Final = b"end\n"  # the session is to be ended
_DONE: Final = b"done\n"  # it has been
_ORDER_BYTES: Final = 64 * 1024
_GONE: Final = "its sender is gone"
_COMMAND: Final = (sys.executable, "-P", "-m", "vscrapy_magic.sender.beacon")


class Order(msgspec.Struct, frozen=True):
    """What the beacon is told at its start; one line of JSON.

    Attributes:
        pid: of the sender.
    """

    url: str
    record: SessionRecord
    ttl_ms: int
    pid: int


class Beacon:
    """The heartbeat of one session, as the sender sees it; a context manager, thread-safe.

    The session has to beat once before by itself. Returns within a few milliseconds.

    Args:
        ttl_ms: silence after which others take the session for gone.
    """

    def __init__(self, url: str, record: SessionRecord, *, ttl_ms: int) -> None:
        self._url = url
        self._record = record
        self._lock = threading.Lock()
        self._said = b""
        self._closed = False
        self._process = subprocess.Popen(
            _COMMAND,
            cwd="/",
            env=helper_variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._say(msgspec.json.encode(Order(url, record, ttl_ms, os.getpid())) + b"\n")
        if self._process.stdout is not None:
            os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs. When it does not, and there is no verdict, start another."""
        return self._process.poll() is None

    def verdict(self) -> str:
        """Why the session was judged gone, as in `not heard of for 14 s`; empty: it was not.

        Never blocks.
        """
        with self._lock:
            stdout = self._process.stdout
            if stdout is not None and not stdout.closed:
                self._said += stdout.read() or b""
            return self._said.decode().strip()

    def abandon(self) -> None:
        """End the process, and not the session: another one is about to take its place."""
        with self._lock:
            self._closed = True
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def close(self) -> None:
        """End the session: its crawls are cancelled, but detached ones. Idempotent.

        Blocks for some milliseconds, or `CLOSE_WITHIN_S` when the server does not answer; then the
        process goes on trying by itself.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        is_done = self._end_here()
        self._say(_DONE if is_done else _END)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_WITHIN_S if is_done else 0)
        self.verdict()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _say(self, line: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(OSError):  # it has been killed, which `alive` tells
                stdin.write(line)
                stdin.flush()

    def _end_here(self) -> bool:
        """End the session from this process, which has the driver at hand; whether it worked."""
        from vscrapy_magic.store.connection import Store

        try:
            with Store.connect(self._url, timeout_s=CLOSE_WITHIN_S) as store:
                _end(store, self._record.session)
        except StoreError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Sender:
    """The sender's process as the beacon sees it.

    Args:
        fd: the pipe from it.
        use_pidfd: False where the system has none.
    """

    def __init__(self, pid: int, fd: int, *, use_pidfd: bool = hasattr(os, "pidfd_open")) -> None:
        self._pid = pid
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._pidfd = -1
        if use_pidfd:
            with contextlib.suppress(OSError):  # it is gone already, or the kernel is too old
                self._pidfd = os.pidfd_open(pid)
                self._poll.register(self._pidfd, select.POLLIN)

    def is_gone(self, within_s: float) -> bool:
        """Whether it has ended, or said so, before `within_s` has passed; blocks until either."""
        deadline = time.monotonic() + within_s
        while True:
            if os.getppid() != self._pid:
                return True
            left_s = max(0.0, deadline - time.monotonic())
            pause_s = left_s if self._pidfd >= 0 else min(left_s, _PARENT_LOOK_S)
            if self._poll.poll(1000 * pause_s):
                return True
            if time.monotonic() >= deadline:
                return os.getppid() != self._pid

    def last_word(self) -> bytes:
        """What it said before it was gone; empty when it did not."""
        os.set_blocking(self._fd, False)
        try:
            return os.read(self._fd, len(_DONE))
        except BlockingIOError:
            return b""


def _end(store: "Store", session: SessionId) -> None:
    """End a session: nobody waits for its next beat, and its crawls are cancelled."""
    from vscrapy_magic.store.presence import Presence

    Presence(store).end_session(session)
    fail_point("beacon_before_cancel")
    _cancel(store, {session: _GONE})


def _cancel(store: "Store", gone: Mapping[SessionId, str]) -> None:
    """Cancel crawls of sessions that are gone; workers do so too, if there are any."""
    from vscrapy_magic.store.crawls import Crawls, Mover

    crawls = Crawls(store)
    for view in crawls.wanted():
        session = view.session
        if session is not None and session in gone:
            with contextlib.suppress(CrawlNotFoundError):
                crawls.cancel(view.crawl_id, Mover.SENDER, why=gone[session])


class _Heart:
    """The loop of the beacon's process."""

    def __init__(self, order: Order, sender: Sender, store: "Store") -> None:
        from vscrapy_magic.store.presence import BEAT_MS, Presence

        self._order = order
        self._sender = sender
        self._store = store
        self._session = order.record.session
        self._presence = Presence(store)
        self._beat_s = min(BEAT_MS / 1000, _longest_beat_s(order.ttl_ms))
        self._heal_s = order.ttl_ms / 1000
        self._known_gone: set[SessionId] = set()

    def run(self) -> str:
        """Beat until the sender is gone, and say so; the verdict when the session was judged."""
        retry_s = _FIRST_RETRY_S
        heal_at = time.monotonic() + self._heal_s
        while True:
            if time.monotonic() >= heal_at:
                self._heal()
                heal_at = time.monotonic() + self._heal_s
            try:
                verdict = self._beat()
            except StoreError:
                self._heal()
                pause_s, retry_s = retry_s, min(RETRY_S, self._beat_s)
            else:
                if verdict:
                    return verdict
                pause_s, retry_s = self._beat_s, _FIRST_RETRY_S
            if self._sender.is_gone(pause_s):
                if self._sender.last_word() != _DONE:
                    self.end()
                return ""

    def _beat(self) -> str:
        fail_point("beacon_before_beat")
        beat = self._presence.beat_session(self._order.record, ttl_ms=self._order.ttl_ms)
        gone = dict(beat.gone_sessions)
        if not beat.alive:
            gone[self._session] = f"its sender was {beat.verdict}"
        news = gone.keys() - self._known_gone
        if news and beat.live_crawls:
            _cancel(self._store, {each: gone[each] for each in news})
        self._known_gone = set(gone)
        return beat.verdict

    def _heal(self) -> None:
        """See that the user's own cluster runs, with workers of our environment.

        Somebody may have killed it; and when another sender was the first to start it again, it
        does not know of us. Does nothing where the session is on another server.
        """
        from vscrapy_magic.sender.cluster import LocalCluster

        with contextlib.suppress(VscrapyError):
            if self._order.url == LocalCluster.url():
                LocalCluster.ensure()

    def end(self) -> None:
        """Tell the server that the sender is gone; keeps trying for a while."""
        deadline = time.monotonic() + TRY_FOR_S
        pause_s = _FIRST_RETRY_S
        while True:
            fail_point("beacon_before_end_session")
            try:
                _end(self._store, self._session)
            except StoreError:
                if time.monotonic() > deadline:
                    return
                time.sleep(pause_s)
                pause_s = RETRY_S
            else:
                return


def _longest_beat_s(ttl_ms: int) -> float:
    return ttl_ms / 1000 / _BEATS_PER_TTL


def main() -> int:
    """Be the heartbeat of the session that standard input tells of; the exit code."""
    fd = sys.stdin.fileno()
    order = msgspec.json.decode(_read_line(fd), type=Order)
    sender = Sender(order.pid, fd)
    is_gone = sender.is_gone(min(_IMPORT_AFTER_S, _longest_beat_s(order.ttl_ms)))
    if is_gone and sender.last_word() == _DONE:
        return 0
    from vscrapy_magic.store.connection import Store

    with Store(order.url) as store:
        heart = _Heart(order, sender, store)
        if is_gone:
            heart.end()
            return 0
        verdict = heart.run()
    with contextlib.suppress(OSError):  # the sender has gone in the meantime
        os.write(sys.stdout.fileno(), verdict.encode())
    return 0


def _read_line(fd: int) -> bytes:
    """One line and nothing that comes after it: the rest of the pipe is watched."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _ORDER_BYTES:
        byte = os.read(fd, 1)
        if not byte:
            raise EOFError("the sender ended before it said what to do")
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
