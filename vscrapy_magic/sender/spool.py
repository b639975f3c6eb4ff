"""Owns the folder where a sender keeps what its crawls brought: items, failures, pages, log lines.

Runs in the sender's process. The thread that follows a crawl appends; any thread reads. One
process collects a crawl (a lock on its folder); others of the same user may read along. An output
is on disk before it is acknowledged, so that the server may forget it; entries carry their commit
numbers, so that a sender that comes back goes on where it, or the one before it, was.

A folder holds `outputs` and `logs` (frames of msgpack), `pages` (of a recorded crawl, the same),
`crawl` (the crawl's spec), `place` (the name of the folder among all that ever collected the
crawl), `code-1` (the source that was shipped; a patch adds another), `origin` (the file or project
that this was read from), `retried` (failures whose requests were put back) and, when the crawl is
over, `files` (what its spider wrote) and `end`. Only source that is kept here was shipped by this
user.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Self

import msgspec

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.sender.files import CrawlFiles
from vscrapy_magic.sender.frames import LineFiles, replace_file
from vscrapy_magic.sender.pages import PageLog
from vscrapy_magic.sender.spools import HELD, SPOOL_VARIABLE
from vscrapy_magic.store.failures import FailureGroup, FailureRecord, buried, read_failures
from vscrapy_magic.store.frames import Frames
from vscrapy_magic.store.inspection import Origin
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import Bundle, CrawlSpec, decode, encode
from vscrapy_magic.store.outputs import Output, Witness

FREE_BYTES_MIN: Final = 500 * 1024**2  # on the disk; with less, nothing more is collected
_PLACE_BYTES: Final = 8  # random: unlike those of all other machines and users
GROUPS_MAX: Final = 1000  # kinds of failures told apart; more are one kind


class SpoolFullError(VscrapyError):
    """The disk of the spool is full: nothing more is collected, and nothing is lost either."""


class CrawlEnd(msgspec.Struct, frozen=True):
    """How a crawl ended, kept for those who ask when the server is long gone.

    Attributes:
        view: the last `CrawlView`, as msgpack.
        stats: merged stats as the server kept them.
    """

    view: bytes
    stats: dict[str, bytes]


class _Group:
    """Failures of one kind so far."""

    def __init__(self, first: FailureRecord) -> None:
        self.first = first
        self.numbers = array("Q")
        self.left_out = 0
        self.workers: set[str] = set()


class Spool:
    """What one crawl brought; a context manager.

    Attributes:
        collects: whether this process may append; otherwise another one of this user does.
        place: name of the folder, which no other has.
        cuts: how often entries were let go of.
        last: the newest entry.
        left_out: failures of which nothing but their number is kept.
        files: what the spider wrote on its workers.
        pages: recorded pages; `refresh` them first.
    """

    def __init__(self, root: Path, crawl_id: CrawlId, spec: CrawlSpec | None = None) -> None:
        """Open the crawl's folder.

        Args:
            spec: makes the folder when it is new; without it the folder must be there.

        Raises:
            FileNotFoundError: there is none, and no spec to make it with.
        """
        self.crawl_id: Final = crawl_id
        self.folder: Final = root / crawl_id
        if spec is not None:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            replace_file(self.folder / "crawl", encode(spec))
        elif not (self.folder / "crawl").exists():
            raise FileNotFoundError(self.folder)
        self._lock = (self.folder / "lock").open("ab")
        self._hold: IO[bytes] | None = None
        self.collects = self._try_lock()
        self.place: Final = _place_of(self.folder)
        self.files: Final = CrawlFiles(self.folder)
        self.pages: Final = PageLog(self.folder)
        self._frames = Frames(self.folder / "outputs", writable=self.collects)
        self._lines = LineFiles(self.folder)
        self.last: Witness | None = None
        self.cuts = 0
        self._change = threading.RLock()  # who reads along refreshes, until it appends itself
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        # Items, and failures, before each entry; the last number is that of all.
        self._items = array("Q", [0])
        self._failures = array("Q", [0])
        self._groups: dict[str, _Group] = {}
        self._noted = 0
        self.left_out = 0
        self.last = None

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def acquire(self) -> bool:
        """Append from now on, if no other process does; whether that is so."""
        if self.collects:
            return True
        if self._lock.closed:
            self._lock = (self.folder / "lock").open("ab")
        if not self._try_lock():
            return False
        with self._change:
            self._frames.take_over()
            self.refresh()
            self.collects = True
        return True

    @property
    def spec(self) -> CrawlSpec:
        """What was ordered."""
        return decode((self.folder / "crawl").read_bytes(), CrawlSpec)

    def keep_code(self, version: int, bundle: Bundle) -> None:
        """Remember the source that was shipped, so that what failed can be run again here.

        Values of environment variables are left out: they may be secrets.
        """
        kept = msgspec.structs.replace(bundle, env=dict.fromkeys(bundle.env, ""))
        replace_file(self.folder / f"code-{version}", encode(kept))

    def code(self, version: int) -> Bundle | None:
        """Source of that version; None where another user or machine has shipped it."""
        with contextlib.suppress(FileNotFoundError):
            return decode((self.folder / f"code-{version}").read_bytes(), Bundle)
        return None

    def keep_origin(self, origin: Origin) -> None:
        """Remember where the source was read."""
        replace_file(self.folder / "origin", msgspec.json.encode(origin))

    @property
    def origin(self) -> Origin | None:
        """Where the source was read; None: of cells, or by another user or machine."""
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode((self.folder / "origin").read_bytes(), type=Origin)
        return None

    def refresh(self) -> None:
        """Take note of what the collecting process has appended meanwhile."""
        with self._change:
            self._frames.scan()
            if len(self._frames) < self._noted:
                self._forget()
                self.cuts += 1
            for number in range(self._noted, len(self._frames)):
                self._note(self.output(number))

    def output(self, number: int) -> Output:
        """One entry, from 0."""
        return msgspec.msgpack.decode(self._frames[number], type=Output)

    def keep(self, outputs: Sequence[Output]) -> list[Output]:
        """Append what the server sent; it is on disk when this returns.

        Returns:
            The entries that were new.

        Raises:
            SpoolFullError: the disk has no room.
        """
        if shutil.disk_usage(self.folder).free < FREE_BYTES_MIN:
            raise SpoolFullError(
                f"less than {FREE_BYTES_MIN >> 20} MB are free in {self.folder}: items wait on the "
                f"server until there is room (or choose another folder with {SPOOL_VARIABLE})"
            )
        with self._change:
            last = self.last.commit_no if self.last else -1
            new = [output for output in outputs if output.commit_no > last]
            try:
                self.pages.keep(new)
                self._frames.append(msgspec.msgpack.encode(_without_records(o)) for o in new)
            except OSError as exc:  # a quota, or a disk that fails; what was written is not counted
                raise SpoolFullError(
                    f"{self.folder} cannot be written ({exc.strerror}): items wait on the server "
                    f"until it can (or choose another folder with {SPOOL_VARIABLE})"
                ) from exc
            for output in new:
                self._note(output)
        return new

    def cut(self, commit_no: int) -> bool:
        """Let go of entries after that commit: another machine collects them. Whether it had any.

        Only for the process that appends.
        """
        self.pages.cut(commit_no)
        if self.last is None or self.last.commit_no <= commit_no:
            return False
        with self._change:
            keep = self._noted
            while keep and self.output(keep - 1).commit_no > commit_no:
                keep -= 1
            self._frames.cut(keep)
            self.refresh()
        return True

    def _note(self, output: Output) -> None:
        number = self._failures[-1]
        for record in _records_in(output):
            group = self._group_of(record)
            if record.counted:
                group.left_out += record.counted
                self.left_out += record.counted
            else:
                number += 1
                group.numbers.append(number)
        self._failures.append(number)
        self._items.append(self._items[-1] + output.item_count)
        self.last = output.witness
        self._noted += 1

    def _group_of(self, record: FailureRecord) -> _Group:
        is_known = record.group in self._groups or len(self._groups) < GROUPS_MAX
        key = record.group if is_known else ""
        group = self._groups.setdefault(key, _Group(record))
        group.workers.add(record.worker)
        return group

    def __len__(self) -> int:
        """Entries."""
        return self._noted

    @property
    def item_count(self) -> int:
        return self._items[-1]

    @property
    def failure_count(self) -> int:
        return self._failures[-1]

    def entry_of_item(self, item: int) -> tuple[int, int]:
        """Number of the entry that holds an item, and the item's place in it; both from 0."""
        return _place(self._items, item)

    def entry_of_failure(self, failure: int) -> tuple[int, int]:
        """The same for a failure, from 0."""
        return _place(self._failures, failure)

    def groups(self) -> list[FailureGroup]:
        """Failures by what they are and where, the most frequent first."""
        retried = self.retried
        found = [
            FailureGroup(
                group.first,
                tuple(group.numbers),
                tuple(sorted(group.workers - {""})),
                group.left_out,
                retried=len(retried.intersection(group.numbers)) if retried else 0,
            )
            for group in list(self._groups.values())
            if group.numbers  # those that are only counted come after others of their group
        ]
        return sorted(found, key=lambda group: -group.count)

    def keep_lines(self, lines: Sequence[LogLine]) -> None:
        """Append log lines; the oldest go when there are too many."""
        self._lines.append(lines)

    def lines(self) -> Iterator[LogLine]:
        """Log lines that are kept, oldest first."""
        return self._lines.read()

    @property
    def end(self) -> CrawlEnd | None:
        """How the crawl ended; None while it has not, or was not followed to its end."""
        with contextlib.suppress(FileNotFoundError):
            return msgspec.msgpack.decode((self.folder / "end").read_bytes(), type=CrawlEnd)
        return None

    def keep_end(self, end: CrawlEnd) -> None:
        """Remember how the crawl ended."""
        replace_file(self.folder / "end", msgspec.msgpack.encode(end))

    def forget_end(self) -> None:
        """The crawl goes on: how it ended does not count any more."""
        (self.folder / "end").unlink(missing_ok=True)

    @property
    def retried(self) -> frozenset[int]:
        """Numbers of failures, from 1, whose requests were put back."""
        with contextlib.suppress(FileNotFoundError):
            content = (self.folder / "retried").read_bytes()
            return frozenset(msgspec.msgpack.decode(content, type=list[int]))
        return frozenset()

    def keep_retried(self, numbers: Iterable[int]) -> None:
        """Remember which failures were put back."""
        replace_file(self.folder / "retried", msgspec.msgpack.encode(sorted(numbers)))

    def rest(self) -> None:
        """The crawl is over: whoever opens it again may collect. The folder stays for who reads."""
        if self._hold is None:
            self._hold = (self.folder / HELD).open("ab")
            with contextlib.suppress(OSError):
                fcntl.flock(self._hold, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._let_go()

    def _let_go(self) -> None:
        self.collects = False
        self._lock.close()

    def release(self) -> None:
        """Let another process collect; reading goes on here. Idempotent."""
        self._let_go()
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _place_of(folder: Path) -> str:
    """The name of a spool's folder; given once, by whichever process comes first."""
    path = folder / "place"
    if not path.exists():
        new = folder / f"place.{secrets.token_hex(_PLACE_BYTES)}"
        new.write_text(secrets.token_hex(_PLACE_BYTES), encoding="ascii")
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return path.read_text(encoding="ascii")


def _without_records(output: Output) -> Output:
    return msgspec.structs.replace(output, records=b"") if output.records else output


def failures_in(output: Output) -> list[FailureRecord]:
    """Failures that one entry brought, but for those that are only counted."""
    return [record for record in _records_in(output) if not record.counted]


def _records_in(output: Output) -> list[FailureRecord]:
    """Failures, and records that stand for those of which nothing but their number is kept."""
    if output.buried is not None:
        return [buried(output.buried)]
    return read_failures(output.failures)


def _place(counts: "array[int]", index: int) -> tuple[int, int]:
    number = bisect_right(counts, index) - 1
    return number, index - counts[number]
