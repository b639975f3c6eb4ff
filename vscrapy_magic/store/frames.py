"""Owns a log on disk: frames with a check sum, appended to, never rewritten.

A sender's spool is one; the sender appends to it, and the process that writes its feeds reads it.
Only its end may be cut off, when it turns out to be another sender's.
A process that was killed leaves at most one frame unfinished, which the next one to write cuts off.
"""

import os
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Final

from vscrapy_magic.failpoints import fail_point

HEAD: Final = Struct(">II")  # length and CRC-32 of the body


class Frames:
    """A file of frames: appended to by one thread of one process, read by any.

    The file is open only while it is written or read (10 us each time): a notebook keeps all of its
    crawls, for as long as it runs, and each would keep a descriptor.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        self._starts = array("Q")
        self._end = 0
        self._lock = threading.Lock()
        self.scan()
        if writable:
            self.take_over()

    @contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def take_over(self) -> None:
        """Append from now on: cut off what a killed process left unfinished."""
        self.scan()
        os.truncate(self._path, self._end)

    def scan(self) -> None:
        """Find the frames that were added since; one that is not whole yet is left for later."""
        with self._lock, self._opened() as fd:
            if os.fstat(fd).st_size < self._end:  # cut by the process that appends
                self._starts, self._end = array("Q"), 0
            while (body := _read(fd, self._end)) is not None:
                self._starts.append(self._end)
                self._end += HEAD.size + len(body)

    def append(self, bodies: Iterable[bytes]) -> None:
        """Add frames; they are on disk when this returns."""
        starts, data = array("Q"), bytearray()
        for body in bodies:
            starts.append(self._end + len(data))
            data += frame(body)
        if not data:
            return
        half = len(data) // 2
        with self._opened() as fd:
            _write(fd, data[:half], self._end)
            fail_point("spool_mid_write")
            _write(fd, data[half:], self._end + half)
            os.fsync(fd)
        if self._end == 0:
            self._sync_folder()
        with self._lock:
            self._end += len(data)
            self._starts.extend(starts)

    def cut(self, count: int) -> None:
        """Keep so many frames, and no more: what came after them was never part of this log."""
        with self._lock, self._opened() as fd:
            self._end = self._starts[count] if count < len(self._starts) else self._end
            del self._starts[count:]
            os.truncate(fd, self._end)
            os.fsync(fd)

    def _sync_folder(self) -> None:
        """Let the file itself survive a machine that goes down."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> bytes:
        with self._opened() as fd:
            body = _read(fd, self._starts[number])
        if body is None:
            raise OSError(f"entry {number} of the spool cannot be read: its disk lost it")
        return body


def _read(fd: int, start: int) -> bytes | None:
    """The frame's body; None when it is not whole."""
    head = os.pread(fd, HEAD.size, start)
    if len(head) < HEAD.size:
        return None
    size, check = HEAD.unpack(head)
    body = os.pread(fd, size, start + HEAD.size)
    return body if len(body) == size and zlib.crc32(body) == check else None


def _write(fd: int, data: bytearray, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def frame(body: bytes) -> bytes:
    """A body with its head."""
    return HEAD.pack(len(body), zlib.crc32(body)) + body
