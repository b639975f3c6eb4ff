"""Owns the smaller files of a spool: log lines, and files that are replaced as a whole.

Runs in the sender's process.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.store.frames import HEAD, frame
from vscrapy_magic.store.logs import LogLine

LINE_BYTES_MAX: Final = 16 * 1024**2  # of one of the two files of log lines
_LINES_LEVEL: Final = 1  # of zlib


class LineFiles:
    """Log lines in two files: the present one, and the one before it."""

    def __init__(self, folder: Path) -> None:
        self._path, self._old = folder / "logs", folder / "logs.old"
        self._is_whole = False

    def append(self, lines: Sequence[LogLine]) -> None:
        """Add lines; the older file goes when the present one is full."""
        if not lines:
            return
        if not self._is_whole:
            self._cut()
        if self._path.exists() and self._path.stat().st_size > LINE_BYTES_MAX:
            self._path.replace(self._old)
        body = zlib.compress(msgspec.msgpack.encode(lines), _LINES_LEVEL)
        with self._path.open("ab") as file:
            file.write(frame(body))

    def _cut(self) -> None:
        """Cut off what a killed process left unfinished: nothing after it would be read."""
        self._is_whole = True
        whole = sum(HEAD.size + len(body) for body in _bodies(self._path))
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > whole:
                os.truncate(self._path, whole)

    def read(self) -> Iterator[LogLine]:
        """Lines, oldest first; ends where a frame is not whole."""
        for path in (self._old, self._path):
            for body in _bodies(path):
                yield from msgspec.msgpack.decode(zlib.decompress(body), type=list[LogLine])


def _bodies(path: Path) -> Iterator[bytes]:
    """Frames of a file up to the first that is not whole; none when it is not there."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            size, check = HEAD.unpack(head)
            body = file.read(size)
            if zlib.crc32(body) != check:
                return
            yield body


def replace_file(path: Path, data: bytes) -> None:
    """Write a small file as a whole, so that no reader sees half of it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
