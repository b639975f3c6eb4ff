"""Owns a log on disk: frames with a check sum, appended to, never rewritten.

A sender's spool is one; the sender appends to it, and the process that writes its feeds reads it.
Only its end may be cut off, when it turns out to be another sender's.
A process that was killed leaves at most one frame unfinished, which the next one to write cuts off.
"""

import os
import threading
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from struct import Struct
from typing import Final

from vscrapy_magic.failpoints import fail_point

HEAD: Final = Struct(">II")  # length and CRC-32 of the body


class Frames:
    """A file of frames: appended to by one thread of one process, read by any."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._folder = path.parent
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._starts = array("Q")
        self._end = 0
        self._lock = threading.Lock()
        self.scan()
        if writable:
            self.take_over()

    def take_over(self) -> None:
        """Append from now on: cut off what a killed process left unfinished."""
        self.scan()
        os.truncate(self._fd, self._end)

    def scan(self) -> None:
        """Find the frames that were added since; one that is not whole yet is left for later."""
        with self._lock:
            if os.fstat(self._fd).st_size < self._end:  # cut by the process that appends
                self._starts, self._end = array("Q"), 0
            while (body := self._read(self._end)) is not None:
                self._starts.append(self._end)
                self._end += HEAD.size + len(body)

    def _read(self, start: int) -> bytes | None:
        """The frame's body; None when it is not whole."""
        head = os.pread(self._fd, HEAD.size, start)
        if len(head) < HEAD.size:
            return None
        size, check = HEAD.unpack(head)
        body = os.pread(self._fd, size, start + HEAD.size)
        return body if len(body) == size and zlib.crc32(body) == check else None

    def append(self, bodies: Iterable[bytes]) -> None:
        """Add frames; they are on disk when this returns."""
        starts, data = array("Q"), bytearray()
        for body in bodies:
            starts.append(self._end + len(data))
            data += frame(body)
        if not data:
            return
        half = len(data) // 2
        self._write(data[:half], self._end)
        fail_point("spool_mid_write")
        self._write(data[half:], self._end + half)
        os.fsync(self._fd)
        if self._end == 0:
            self._sync_folder()
        with self._lock:
            self._end += len(data)
            self._starts.extend(starts)

    def cut(self, count: int) -> None:
        """Keep so many frames, and no more: what came after them was never part of this log."""
        with self._lock:
            self._end = self._starts[count] if count < len(self._starts) else self._end
            del self._starts[count:]
            os.truncate(self._fd, self._end)
            os.fsync(self._fd)

    def _write(self, data: bytearray, at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def _sync_folder(self) -> None:
        """Let the file itself survive a machine that goes down."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> bytes:
        body = self._read(self._starts[number])
        if body is None:
            raise OSError(f"entry {number} of the spool cannot be read: its disk lost it")
        return body

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def frame(body: bytes) -> bytes:
    """A body with its head."""
    return HEAD.pack(len(body), zlib.crc32(body)) + body
