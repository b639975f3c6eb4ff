"""Owns the recorded pages of a crawl on the sender's disk, and how its user holds them.

Runs in the sender's process; any thread. They are a log of their own in the crawl's spool, because
who reads items or writes feeds is not to read them, too. A page is on disk before the entry that
brought it, and carries that one's commit number: one that a killed process kept twice counts once.
"""

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.sender.failures import Captured
from vscrapy_magic.store.frames import Frames
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.pages import PageRecord, read_pages

PAGES: Final = "pages"  # of the spool's folder


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """Pages of one commit."""

    commit_no: int
    count: int
    packet: bytes


class PageLog:
    """The recorded pages of one crawl; there is no file before there is one."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / PAGES
        self._lock = threading.RLock()
        self._frames: Frames | None = None
        self._forget()

    def _forget(self) -> None:
        self._before = array("Q", [0])  # pages before each entry; the last number is that of all
        self._commits = array("Q")
        self._cached: tuple[int, list[PageRecord]] = (-1, [])

    def refresh(self) -> None:
        """Take note of what is there; the first time this reads all of it."""
        with self._lock:
            if self._frames is None:
                if not self._path.exists():
                    return
                self._frames = Frames(self._path, writable=False)
            else:
                self._frames.scan()
            self._note(self._frames)

    def _note(self, frames: Frames) -> None:
        if len(frames) < len(self._commits):  # another collector took over what came last
            self._forget()
        for number in range(len(self._commits), len(frames)):
            entry = _decoded(frames[number])
            self._before.append(self._before[-1] + entry.count)
            self._commits.append(entry.commit_no)

    def keep(self, outputs: Iterable[Output]) -> None:
        """Append the pages of these entries; on disk when this returns.

        Only for the process that collects. Idempotent.
        """
        brought = [output for output in outputs if output.records]
        if not brought:
            return
        with self._lock:
            self.refresh()
            last = self._commits[-1] if self._commits else -1
            new = [output for output in brought if output.commit_no > last]
            if self._frames is None:
                self._frames = Frames(self._path, writable=True)
            self._frames.take_over()  # what a killed process left unfinished
            self._frames.append(
                msgspec.msgpack.encode(_Entry(o.commit_no, o.record_count or 0, o.records))
                for o in new
            )
            self._note(self._frames)

    def cut(self, commit_no: int) -> None:
        """Let go of what came after that commit. Only for the process that collects."""
        with self._lock:
            self.refresh()
            keep = bisect_right(self._commits, commit_no)
            if self._frames is not None and keep < len(self._commits):
                self._frames.cut(keep)
                self._note(self._frames)

    def __len__(self) -> int:
        return self._before[-1]

    def __getitem__(self, place: int) -> PageRecord:
        """One page, from 0."""
        with self._lock:
            number = bisect_right(self._before, place) - 1
            if self._frames is None or number >= len(self._commits):
                raise IndexError(f"there is no page {place} among {len(self)}")
            if self._cached[0] != number:
                self._cached = number, read_pages(_decoded(self._frames[number]).packet)
            return self._cached[1][place - self._before[number]]


def _decoded(frame: bytes) -> _Entry:
    return msgspec.msgpack.decode(frame, type=_Entry)


class Page(Captured[PageRecord]):
    """One recorded page."""

    def __init__(self, record: PageRecord) -> None:
        super().__init__(record, record.call)

    def __repr__(self) -> str:
        record = self.record
        return f"<Page {record.response.status} {record.url} -> {record.callback}>"
