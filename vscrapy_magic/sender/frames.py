"""Owns the files of a spool: frames with a check sum, appended to, never rewritten.

Runs in the sender's process. A process that was killed leaves at most one frame unfinished, which
the next one to write cuts off.
"""

import contextlib
import os
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from vscrapy_magic.store.logs import LogLine

LINE_BYTES_MAX: Final = 16 * 1024**2  # of one of the two files of log lines
_HEAD: Final = Struct(">II")  # length and CRC-32 of the body
_LINES_LEVEL: Final = 1  # of zlib


class Frames:
    """A file of frames: appended to by one thread of one process, read by any."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._starts = array("Q")
        self._end = 0
        self._lock = threading.Lock()
        self.scan()
        if writable:
            os.truncate(self._fd, self._end)  # a frame that a killed process left unfinished

    def scan(self) -> None:
        """Find the frames that were added since; one that is not whole yet is left for later."""
        with self._lock:
            while (body := self._read(self._end)) is not None:
                self._starts.append(self._end)
                self._end += _HEAD.size + len(body)

    def _read(self, start: int) -> bytes | None:
        """The frame's body; None when it is not whole."""
        head = os.pread(self._fd, _HEAD.size, start)
        if len(head) < _HEAD.size:
            return None
        size, check = _HEAD.unpack(head)
        body = os.pread(self._fd, size, start + _HEAD.size)
        return body if len(body) == size and zlib.crc32(body) == check else None

    def append(self, bodies: Iterable[bytes]) -> None:
        """Add frames; they are on disk when this returns."""
        starts, data = array("Q"), bytearray()
        for body in bodies:
            starts.append(self._end + len(data))
            data += _head(body) + body
        if not data:
            return
        view, at = memoryview(data), self._end
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written
        os.fsync(self._fd)
        with self._lock:
            self._end += len(data)
            self._starts.extend(starts)

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


class LineFiles:
    """Log lines in two files: the present one, and the one before it."""

    def __init__(self, folder: Path) -> None:
        self._path, self._old = folder / "logs", folder / "logs.old"

    def append(self, lines: Sequence[LogLine]) -> None:
        """Add lines; the older file goes when the present one is full."""
        if not lines:
            return
        if self._path.exists() and self._path.stat().st_size > LINE_BYTES_MAX:
            self._path.replace(self._old)
        body = zlib.compress(msgspec.msgpack.encode(lines), _LINES_LEVEL)
        with self._path.open("ab") as file:
            file.write(_head(body) + body)

    def read(self) -> Iterator[LogLine]:
        """Lines, oldest first; ends where a frame is not whole."""
        for path in (self._old, self._path):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                while len(head := file.read(_HEAD.size)) == _HEAD.size:
                    size, check = _HEAD.unpack(head)
                    body = file.read(size)
                    if zlib.crc32(body) != check:
                        break
                    yield from msgspec.msgpack.decode(zlib.decompress(body), type=list[LogLine])


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file as a whole, so that no reader sees half of it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def _head(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body))
