"""Owns the folder where a sender keeps what its crawls brought: items, failures, log lines.

Runs in the sender's process. The thread that follows a crawl appends; any thread reads. One
process collects a crawl (a lock on its folder); others of the same user may read along. An output
is on disk before it is acknowledged, so that the server may forget it; entries carry their commit
numbers, so that a sender that comes back goes on where it, or the one before it, was.

A folder holds `outputs` and `logs` (frames of msgpack), `crawl` (the crawl's spec), `code-1` (the
source that was shipped; a patch adds another) and, when the crawl is over, `files` (what its spider
wrote) and `end`. Only source that is kept here was shipped by this user.
"""

import contextlib
import fcntl
import os
import shutil
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
import platformdirs

from vscrapy_magic.config import private_dir
from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.sender.files import CrawlFiles
from vscrapy_magic.sender.frames import LineFiles, replace_file
from vscrapy_magic.store.failures import FailureGroup, FailureRecord, buried, read_failures
from vscrapy_magic.store.frames import Frames
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import Bundle, CrawlSpec, decode, encode
from vscrapy_magic.store.outputs import Output, Witness

SPOOL_VARIABLE: Final = "VSCRAPY_SPOOL"  # another folder than the user's cache
KEEP_S: Final = 3 * 24 * 3600.0  # spools of crawls that are over; Redis keeps outputs for a day
ROOT_BYTES_MAX: Final = 4 * 1024**3  # of all spools together; the oldest that are over go first
FREE_BYTES_MIN: Final = 500 * 1024**2  # on the disk; with less, nothing more is collected
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


def spool_root() -> Path:
    """This user's folder of spools, 0700."""
    given = os.environ.get(SPOOL_VARIABLE)
    cache = Path(platformdirs.user_cache_dir("vscrapy", appauthor=False))
    return private_dir(Path(given) if given else cache / "spool")


def prune(root: Path, *, now: float | None = None) -> None:
    """Remove spools that are past their time, and the oldest while all together are too large."""
    now = time.time() if now is None else now
    folders = sorted(
        (path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    sizes = {path: sum(f.lstat().st_size for f in path.rglob("*")) for path in folders}
    total = sum(sizes.values())
    for path in folders:
        is_old = now - path.stat().st_mtime > KEEP_S
        if (is_old or total > ROOT_BYTES_MAX) and _is_free(path):
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def _is_free(folder: Path) -> bool:
    """Whether no process collects into this folder."""
    try:
        with (folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


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
        last: the newest entry.
        left_out: failures of which nothing but their number is kept.
        files: what the spider wrote on its workers.
    """

    def __init__(self, root: Path, crawl_id: CrawlId, spec: CrawlSpec | None = None) -> None:
        """Open the crawl's folder.

        Args:
            spec: makes the folder when it is new; without it the folder must be there.

        Raises:
            FileNotFoundError: there is none, and no spec to make it with.
        """
        self.folder: Final = root / crawl_id
        if spec is not None:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            replace_file(self.folder / "crawl", encode(spec))
        elif not (self.folder / "crawl").exists():
            raise FileNotFoundError(self.folder)
        self._lock = (self.folder / "lock").open("ab")
        self.collects = True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.collects = False
        self.files: Final = CrawlFiles(self.folder)
        self._frames = Frames(self.folder / "outputs", writable=self.collects)
        self._lines = LineFiles(self.folder)
        # Items, and failures, before each entry; the last number is that of all.
        self._items = array("Q", [0])
        self._failures = array("Q", [0])
        self._groups: dict[str, _Group] = {}
        self._noted = 0
        self.left_out = 0
        self.last: Witness | None = None
        self.refresh()

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

    def refresh(self) -> None:
        """Take note of what the collecting process has appended meanwhile."""
        self._frames.scan()
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
        last = self.last.commit_no if self.last else -1
        new = [output for output in outputs if output.commit_no > last]
        try:
            self._frames.append(map(msgspec.msgpack.encode, new))
        except OSError as exc:  # a quota, or a disk that fails; what was written is not counted
            raise SpoolFullError(
                f"{self.folder} cannot be written ({exc.strerror}): items wait on the server until "
                f"it can (or choose another folder with {SPOOL_VARIABLE})"
            ) from exc
        for output in new:
            self._note(output)
        return new

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
        found = [
            FailureGroup(
                group.first,
                tuple(group.numbers),
                tuple(sorted(group.workers - {""})),
                group.left_out,
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

    def release(self) -> None:
        """Let another process collect; reading goes on here. Idempotent."""
        self.collects = False
        self._lock.close()

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self.release()
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
