"""Owns the feeds of one crawl as its sender sees them: a process that writes them from the spool.

Runs in the sender's process. `deliver` is called from the thread that follows the crawl, when new
outputs are in the spool; `finish` and `leave` from there, or from the thread that closes the
crawl. What was ordered is kept in the spool, with a copy of the source: another sender that
collects the crawl later, because this one was killed or never wanted to wait, goes on with the
feeds.

The writer reads the spool; what it is told is that there is more, and that there will be no more.
When its input ends without that, it finishes the feeds with what is in the spool, so that a killed
sender leaves valid files (`runtime/feeds.py`).
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from vscrapy_magic.config import private_dir
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.frames import replace_file
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.feed_journal import FeedState, Note, read_journal
from vscrapy_magic.store.inspection import END, GROWN, FeedOrder, FeedStart, Source
from vscrapy_magic.store.messages import Bundle
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.scratch import Scratch, sweep

# -P: the user's folder is the working folder, and must not hide modules of this package.
COMMAND: Final = (sys.executable, "-P", "-m", "vscrapy_magic.runtime.feeds")
LOG: Final = "outputs"  # of the spool's folder
STARTS_MAX: Final = 3  # of a writer that is killed again and again
_EXIT_LOCKED: Final = 3  # of `runtime/feeds.py`
_FOLDER: Final = "feeds"  # in the spool's folder
_SAID_CHARS_MAX: Final = 500


class Feeds:
    """The feeds of one crawl; thread-safe.

    Made by `Feeds.keep` for a new crawl, by `Feeds.find` for one that is collected again. The
    process starts when there is something to write.
    """

    def __init__(self, order: FeedOrder, spool: Path, *, journal: Path | None = None) -> None:
        """The feeds of the crawl whose spool that is.

        Args:
            journal: the folder for what is noted of them, when it is not the spool's.
        """
        self.order: Final = order
        self._folder = private_dir(journal or spool / _FOLDER)
        self._log = spool / LOG
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._is_over = False
        self._problems: list[str] = []
        self._restarted = ""
        self._told = 0
        self._seen_bytes = 0
        self._alive_ns = self._last_change_ns()

    @classmethod
    def keep(cls, order: FeedOrder, bundle: Bundle, spool: Path) -> Self:
        """The feeds of a new crawl; what was ordered is kept for those who collect it later."""
        folder = private_dir(spool / _FOLDER)
        copy = folder / "source"
        for name, content in bundle.files.items():
            path = copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        order = msgspec.structs.replace(order, cwd=order.cwd or os.getcwd())  # noqa: PTH109
        kept = _of_copy(order, bundle, copy)
        replace_file(folder / "order", _encoded(kept))
        # A project, or a file, is read where it is, as long as it is what was sent: paths that are
        # made of its `__file__` lead to where its user expects. Of a class there is only the copy.
        return cls(order if order.source.entry or bundle.project else kept, spool)

    @classmethod
    def find(cls, spool: Path) -> Self | None:
        """The feeds that were ordered with the crawl; None: there were none."""
        try:
            content = (spool / _FOLDER / "order").read_bytes()
        except FileNotFoundError:
            return None
        return cls(msgspec.json.decode(content, type=FeedOrder), spool)

    def _last_change_ns(self) -> int:
        """When somebody last wrote to the log or to the journal."""
        found = [0]
        for path in (self._log, self._journal):
            with contextlib.suppress(FileNotFoundError):
                found.append(path.stat().st_mtime_ns)
        return max(found)

    @property
    def _journal(self) -> Path:
        return self._folder / "journal"

    @property
    def state(self) -> FeedState:
        """What is noted of them."""
        return read_journal(self._journal)

    # Writing.

    def deliver(self, outputs: Sequence[Output]) -> None:
        """New outputs are in the spool; returns at once."""
        if any(output.item_count for output in outputs):
            self.go_on()

    def go_on(self) -> None:
        """See that the writer writes what is in the spool; starts it, again if it was killed."""
        with self._lock:
            if not self._is_over and self._is_running():
                self._tell(GROWN)

    def begin_again(self) -> None:
        """The end of the log was cut off: write the feeds anew, from the first item."""
        with self._lock:
            if self._process is None or self._is_over:
                return
            self._process.kill()
            self._end_of(self._process)
            self._process.wait()
            self._process = None
            self._starts -= 1
            self._alive_ns = self._last_change_ns()

    def _is_running(self) -> bool:
        """Whether there is a writer, after one that was killed has been replaced."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return True
            self._end_of(self._process)
            if code >= 0:
                return False  # by itself: it has said why
            self._process = None
            self._restarted = f"their writer was killed (signal {-code}) and started again"
            if self._starts >= STARTS_MAX:
                self._problems = [f"their writer was killed {STARTS_MAX} times (signal {-code})"]
        if self._starts >= STARTS_MAX:
            return False
        self._start()
        return self._process is not None

    def _start(self) -> None:
        self._starts += 1
        start = FeedStart(
            order=self.order,
            log=str(self._log),
            journal=str(self._journal),
            lock=str(self._folder / "lock"),
            pid=os.getpid(),
            alive_ns=self._alive_ns if self._starts == 1 else self._last_change_ns(),
        )
        try:
            with (self._folder / "said").open("wb") as said:
                self._process = subprocess.Popen(
                    COMMAND,
                    cwd=self.order.cwd or None,
                    stdin=subprocess.PIPE,
                    stderr=said,
                    start_new_session=True,  # an interrupt at the terminal is the sender's business
                )
        except OSError as exc:
            self._starts = STARTS_MAX
            self._problems = [f"not written: {exc.filename or ''}: {exc.strerror}"]
            return
        self._tell(_encoded(start) + b"\n")
        if self._process.stdin is not None:
            # A pipe that is full of `GROWN` says as much as one more of it would.
            os.set_blocking(self._process.stdin.fileno(), False)

    def _tell(self, word: bytes) -> None:
        stdin = self._process.stdin if self._process is not None else None
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(OSError):  # it has ended, which is looked at elsewhere
                os.write(stdin.fileno(), word)

    # The end.

    def finish(self, entries: int) -> None:
        """All that the crawl brought is in the spool: complete the feeds. Idempotent.

        Blocks until they are written; a writer that is killed meanwhile is started again.

        Args:
            entries: of the spool.
        """
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            if self._process is None and self.is_complete(entries):
                return
            while self._is_running():
                self._close(END)
                if self._process is None or self._process.returncode >= 0:
                    break
            self._note_exit()

    def leave(self) -> None:
        """Nothing more is collected here: finish the files as they are. Idempotent."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            if self._process is not None:
                self._close(b"")
                self._note_exit()

    def _close(self, word: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        if not process.stdin.closed:
            os.set_blocking(process.stdin.fileno(), True)
            self._tell(word)
            self._end_of(process)
        process.wait()

    def _end_of(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _note_exit(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode == _EXIT_LOCKED:
            self._problems = ["another process still writes them"]
        elif process.returncode == 0:
            self._problems = []
        elif process.returncode > 0 and self.state.ended is None:
            said = (self._folder / "said").read_text(errors="replace").strip()
            self._problems = [said[-_SAID_CHARS_MAX:].splitlines()[-1] if said else "they failed"]

    # What came of them.

    def is_complete(self, entries: int) -> bool:
        """Whether they hold all of a spool with so many entries."""
        return self.state.is_complete(entries)

    @property
    def notes(self) -> list[Note]:
        """What its user should know: what was stored, and what is not as it should be."""
        bad = [Note(f"feeds: {text}", bad=True) for text in self._problems]
        again = [Note(f"feeds: {self._restarted}")] if self._restarted and not bad else []
        return [*again, *self.state.notes, *bad]

    def news(self) -> list[str]:
        """Bad news since this was last asked, for who follows the crawl; one thread asks."""
        with contextlib.suppress(FileNotFoundError):
            size = self._journal.stat().st_size
            if size != self._seen_bytes or self._problems:
                self._seen_bytes = size
                bad = [note.text for note in self.notes if note.bad]
                new, self._told = bad[self._told :], max(self._told, len(bad))
                return new
        return []

    @property
    def lines(self) -> tuple[str, ...]:
        """The same as text."""
        return tuple(note.text for note in self.notes)


def export(spool: Spool, spider: str, files: Sequence[str], *, overwrite: bool) -> tuple[str, ...]:
    """Write what a spool holds now into other feeds than were ordered; a line on each.

    With the source that was kept of a crawl that had feeds, items are of their classes; otherwise
    they are plain dictionaries.

    Raises:
        ConfigError: not all could be written.
    """
    given: dict[str, tuple[str, ...]] = {
        "output": () if overwrite else tuple(files),
        "overwrite": tuple(files) if overwrite else (),
    }
    kept = Feeds.find(spool.folder)
    order = kept.order if kept is not None else FeedOrder(source=Source(spider=spider), plain=True)
    source = msgspec.structs.replace(order.source, **given)
    order = msgspec.structs.replace(order, source=source, cwd=os.getcwd())  # noqa: PTH109
    sweep()  # what a killed process left
    with Scratch("feeds") as scratch:
        feeds = Feeds(order, spool.folder, journal=scratch.path)
        feeds.finish(len(spool))
        bad = [note.text for note in feeds.notes if note.bad]
        if bad:
            raise ConfigError("; ".join(bad))
        return feeds.lines


def _encoded(value: FeedOrder | FeedStart) -> bytes:
    """As JSON; a path is its text."""
    return msgspec.json.encode(value, enc_hook=str)


def _of_copy(order: FeedOrder, bundle: Bundle, copy: Path) -> FeedOrder:
    """The order with the copy of the source in place of where it was."""
    entry = str(copy / bundle.entry) if bundle.entry else ""
    source = msgspec.structs.replace(order.source, entry=entry, folder=str(copy))
    return msgspec.structs.replace(order, source=source, project=bundle.project)
