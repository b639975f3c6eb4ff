"""Owns what is noted of a crawl's feeds: which files were begun, how far they are, how it ended.

Written by the process that writes feeds, read by it when it starts again and by its sender. It is a
file of JSON lines, appended to; a last line that is not whole was being written when its process
was killed, and does not count.

Feeds can be made anew from the spool at any time, byte for byte: what has to be remembered is only
what is not in the spool. That is how long a file was before the crawl (`-o` appends), the times
in addresses, the batches that are complete (somebody may have taken them away), and what a file
was like when it was last written, so that nobody else's is overwritten.
"""

import os
from pathlib import Path
from typing import Final

import msgspec


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A process began to write; those before it write no more."""


class Ordered(msgspec.Struct, frozen=True, tag="ordered"):
    """The feeds, in their order: addresses, not completed yet. Noted once, by the first process."""

    uris: tuple[str, ...]


class Named(msgspec.Struct, frozen=True, tag="named"):
    """The times that an address was completed with: those of a batch of a feed.

    Attributes:
        feed: number of the feed, from 0.
    """

    feed: int
    batch: int
    time: str
    batch_time: str


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """A file of this machine was begun.

    Attributes:
        before_bytes: of it that are older than the crawl.
        inode: of the file that was opened.
    """

    uri: str
    feed: int
    path: str
    before_bytes: int
    inode: int


class Closed(msgspec.Struct, frozen=True, tag="closed", omit_defaults=True):
    """A file, or what is stored elsewhere, was finished.

    Attributes:
        whole: it is a full batch, which nothing is ever added to.
        size_bytes: of a file of this machine; 0 for others.
    """

    uri: str
    items: int
    whole: bool = False
    size_bytes: int = 0
    time_ns: int = 0


class At(msgspec.Struct, frozen=True, tag="at"):
    """So many entries of the spool, and items in them, were handed to the exporters."""

    entries: int
    items: int


class Note(msgspec.Struct, frozen=True, tag="note", omit_defaults=True):
    """Something for the user.

    Attributes:
        bad: a feed is not as it should be.
    """

    text: str
    bad: bool = False


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The process has finished what it was given.

    Attributes:
        good: whether all feeds hold what is in the spool, as far as they are to be written.
    """

    good: bool


Record = Began | Ordered | Named | Opened | Closed | At | Note | Ended

_DECODER: Final = msgspec.json.Decoder(Record)
_ENCODER: Final = msgspec.json.Encoder()


class FeedState:
    """What the journal says.

    Attributes:
        uris: as they were ordered; empty before the first process.
        opened: by address; as of the first time, but for the inode.
        closed: by address, in the last process that closed it.
        entries: that the last process handed on.
        ended: of the last process; None when it was killed, or is still running.
        notes: of the last process.
        time_ns: of the journal's last change.
    """

    def __init__(self) -> None:
        self.uris: tuple[str, ...] = ()
        self.named: dict[tuple[int, int], Named] = {}
        self.opened: dict[str, Opened] = {}
        self.closed: dict[str, Closed] = {}
        self.entries = 0
        self.items = 0
        self.ended: Ended | None = None
        self.notes: list[Note] = []
        self.time_ns = 0

    def add(self, record: Record) -> None:
        """Take note of one record."""
        if isinstance(record, Began):
            self.entries = self.items = 0
            self.ended, self.notes = None, []
        elif isinstance(record, Ordered):
            self.uris = record.uris
        elif isinstance(record, Named):
            self.named[record.feed, record.batch] = record
        elif isinstance(record, Opened):
            self.opened[record.uri] = record
            self.closed.pop(record.uri, None)
        elif isinstance(record, Closed):
            self.closed[record.uri] = record
        elif isinstance(record, At):
            self.entries, self.items = record.entries, record.items
        elif isinstance(record, Note):
            self.notes.append(record)
        else:
            self.ended = record

    def is_complete(self, entries: int) -> bool:
        """Whether the feeds hold all of a spool with so many entries."""
        return self.ended is not None and self.ended.good and self.entries == entries


def read_journal(path: Path) -> FeedState:
    """What is noted; an empty state when nothing is."""
    state = FeedState()
    try:
        lines = path.read_bytes().split(b"\n")
        state.time_ns = path.stat().st_mtime_ns
    except FileNotFoundError:
        return state
    for line in lines[:-1]:
        state.add(_DECODER.decode(line))
    return state


class Journal:
    """The journal, open for appending; by the one process that writes the feeds.

    Attributes:
        state: what it says, what was written here included.
    """

    def __init__(self, path: Path) -> None:
        self.state = read_journal(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
        content = path.read_bytes()
        os.truncate(self._fd, content.rfind(b"\n") + 1)  # a line that was being written

    def note(self, record: Record) -> None:
        """Append one record."""
        self.state.add(record)
        os.write(self._fd, _ENCODER.encode(record) + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)
