"""Owns the way of files that spider code writes: from its child's folder to the sender.

A child says before it leaves that files are coming; its supervisor sends them when it has ended,
in pieces, so that nothing else has to wait long; the sender takes those that are whole and removes
them. What the bundle brought carries no time of change (`SHIPPED_S`): all else was written since.
"""

import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.errors import CrawlNotFoundError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, MemberToken, crawl_key, crawl_prefix
from vscrapy_magic.store.scripts import load_script
from vscrapy_magic.store.shared import Shared

FILE_BYTES_MAX: Final = 20 * 1024 * 1024  # of one file
FILES_BYTES_MAX: Final = 50 * 1024 * 1024  # of all files of one crawl
FILES_MAX: Final = 200  # of one crawl
PIECE_BYTES: Final = 1024 * 1024  # before it is packed; what one call carries
SHIPPED_S: Final = 0  # time of change of files that were there before the spider
SEEN_MAX: Final = 10_000  # files of a folder that are looked at; a cache has no end
_SKIPPED: Final = frozenset({"__pycache__", ".scrapy"})  # folders of Python's and Scrapy's own
_LEVEL: Final = 1  # of zlib
_HERE: Final = "f:"
_COMING: Final = "w:"
_BETWEEN: Final = "\0"  # token and path: in neither of them


class Written(msgspec.Struct, frozen=True):
    """A file that spider code wrote: its path in the child's folder, with `/`."""

    path: str
    size_bytes: int


def mark_shipped(path: Path) -> None:
    """Say of a file that it was there before the spider."""
    os.utime(path, (SHIPPED_S, SHIPPED_S))


def written_in(folder: Path) -> Iterator[Written]:
    """Files that are new or changed in a child's folder, by path; links lead nowhere."""
    seen = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for name in sorted(names):
            seen += 1
            if seen > SEEN_MAX:
                return
            path = Path(root) / name
            try:
                facts = path.lstat()
                shown = path.relative_to(folder).as_posix()
                shown.encode()
            except (OSError, UnicodeEncodeError):
                continue  # removed meanwhile, or a name that is no text
            if stat.S_ISREG(facts.st_mode) and facts.st_mtime != SHIPPED_S:
                yield Written(shown, facts.st_size)


def open_written(folder: Path, path: str) -> int:
    """A descriptor of a file in a child's folder; a link in its place is an `OSError`."""
    return os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


class Arrival(msgspec.Struct, frozen=True):
    """A whole file that waits for the sender.

    Attributes:
        fields: where its pieces are, in order.
    """

    token: MemberToken
    path: str
    fields: tuple[str, ...]


class Files:
    """Files of one crawl on their way; thread-safe, each call blocks for one round trip."""

    def __init__(self, store: Store, crawl_id: CrawlId) -> None:
        self._store = store
        self._crawl_id = crawl_id
        self._key = crawl_key(crawl_id, "files")
        self._retention_ms = 0

    def begin(self, token: MemberToken) -> None:
        """Say that files of this child are coming."""
        self._call(token, "begin")

    def put(self, token: MemberToken, path: str, number: int, size_bytes: int, data: bytes) -> bool:
        """Send one piece; False when this file would go beyond what a crawl may send.

        Args:
            number: of the piece, from 0, in order.
            size_bytes: of the whole file.

        Raises:
            CrawlNotFoundError: the crawl is past its retention.
        """
        packed = zlib.compress(data, _LEVEL)
        return self._call(token, "put", path, number, size_bytes, packed)

    def done(self, token: MemberToken) -> None:
        """Say that all files of this child have come. Idempotent."""
        self._call(token, "done")

    def _call(self, token: MemberToken, what: str, *more: bytes | str | int) -> bool:
        self._retention_ms = self._retention_ms or Shared(self._store).read().retention_ms
        args = [token, what, self._retention_ms, *more]
        if more:
            args += [FILES_MAX, FILES_BYTES_MAX]
        reply = self._store.call(load_script("file"), (crawl_prefix(self._crawl_id),), args)
        if reply[0] == b"unknown":
            raise CrawlNotFoundError(f"crawl {self._crawl_id}: past its retention")
        return bool(reply[0] == b"ok")

    def arrived(self) -> tuple[list[Arrival], frozenset[MemberToken]]:
        """Files that are whole, and children whose files are still coming."""
        with self._store.errors_wrapped():
            fields = [raw.decode(errors="replace") for raw in self._store.client.hkeys(self._key)]
        coming = frozenset(
            MemberToken(field.removeprefix(_COMING))
            for field in fields
            if field.startswith(_COMING)
        )
        pieces: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for field in fields:
            name, _, number = field.removeprefix(_HERE).rpartition(":")
            token, _, path = name.partition(_BETWEEN)
            if field.startswith(_HERE) and number.isdecimal() and token not in coming:
                pieces[token, path][int(number)] = field
        return [
            Arrival(MemberToken(token), path, tuple(numbered[n] for n in sorted(numbered)))
            for (token, path), numbered in sorted(pieces.items())
        ], coming

    def read(self, arrival: Arrival) -> Iterator[bytes]:
        """The content of a file, piece by piece."""
        for field in arrival.fields:
            with self._store.errors_wrapped():
                packed = self._store.client.hget(self._key, field)
            if packed is None:
                return
            # A worker that is not ours may send what unpacks to anything.
            yield zlib.decompressobj().decompress(packed, PIECE_BYTES)

    def remove(self, arrival: Arrival) -> None:
        """The sender keeps this file: it need not be kept here."""
        with self._store.errors_wrapped():
            self._store.client.hdel(self._key, *arrival.fields)
