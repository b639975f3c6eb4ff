"""Owns where feeds go: storages that can begin again, and leave alone what is not theirs.

Runs in the process that writes feeds. Every storage that Scrapy, or the user, has for an address is
given a class of ours on top, by the setting for it (`FEED_STORAGES`); what is written, and how,
stays theirs.

A feed that is written again, because its sender or its writer was killed, begins where the crawl
began: a file that is appended to is cut to its length before. A batch that is complete is not
written again: somebody may have taken it away by now. A file that was changed by somebody else
since is not touched.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from scrapy.extensions.feedexport import BlockingFeedStorage, FileFeedStorage
from scrapy.settings import Settings
from scrapy.utils.misc import load_object
from twisted.internet.defer import Deferred

from vscrapy_magic.store.feed_journal import Closed, Journal, Named, Note, Opened

NUMBER: Final = "vscrapy_feed"  # among a feed's options: its number, from 0
_ALIVE_SLACK_NS: Final = 3 * 10**9  # between a writer's last note and its last write to a file
_STDOUT: Final = "stdout:"
_TIMES: Final = ("time", "batch_time")


class FeedFiles:
    """What is written where, for one process.

    Attributes:
        has_failed: a feed is not as it should be; the journal has a note of it.
        is_left: the sender is gone: more may come in another process.
    """

    def __init__(self, journal: Journal, alive_ns: int) -> None:
        self.journal: Final = journal
        self._alive_ns = alive_ns
        self.has_failed = False
        self.is_left = False

    def fail(self, text: str) -> None:
        """One line for the user: a feed is not as it should be."""
        self.has_failed = True
        self.journal.note(Note(text, bad=True))

    def feeds(self, ordered: dict[Any, Any], settings: Settings) -> dict[str, dict[str, Any]]:
        """The feeds to be written, with what is needed to write them again.

        Addresses are those of the first time: where the source is a copy, paths that are made of
        its `__file__` would lead into the copy.
        """
        uris = self.journal.state.uris
        if len(uris) != len(ordered):
            uris = tuple(map(_address, ordered))
        found = {}
        for number, (uri, options) in enumerate(zip(uris, ordered.values(), strict=True)):
            if self._may_write(number, uri):
                function = options.get("uri_params", settings["FEED_URI_PARAMS"])
                named = _named(self.journal, number, function)
                found[uri] = {**options, NUMBER: number, "uri_params": named}
        return found

    def _may_write(self, number: int, uri: str) -> bool:
        """Whether a feed may be written again; says so when not."""
        if not self.journal.state.uris:
            return True
        if uri.startswith(_STDOUT):
            self.fail("standard output: what was written there cannot be taken back")
            return False
        closed = self.journal.state.closed
        for opened in list(self.journal.state.opened.values()):
            end = closed.get(opened.uri)
            if opened.feed != number or (end is not None and end.whole):
                continue
            is_ours = self._is_ours(opened, end)
            if is_ours is None:
                self.journal.note(Note(f"{opened.path} was moved or deleted: written anew"))
            elif not is_ours:
                self.fail(f"{opened.path} was changed by somebody else meanwhile: left as it is")
                return False
        return True

    def _is_ours(self, opened: Opened, end: Closed | None) -> bool | None:
        """Whether nobody else has changed the file; None: it is not there any more."""
        try:
            now = Path(opened.path).stat()
        except OSError:
            return None
        if now.st_ino != opened.inode or now.st_size < opened.before_bytes:
            return False
        if end is not None:
            return (now.st_size, now.st_mtime_ns) == (end.size_bytes, end.time_ns)
        return now.st_mtime_ns <= self._alive_ns + _ALIVE_SLACK_NS

    def storages(self, settings: Settings) -> dict[str, Any]:
        """The storage for each scheme, able to begin again."""
        found = settings.getwithbase("FEED_STORAGES").items()
        return {scheme: self._kept(path) for scheme, path in found if path is not None}

    def _kept(self, path: Any) -> Any:
        try:
            kind = load_object(path)
        except Exception:  # noqa: BLE001 - what it needs is not installed: Scrapy says so itself
            return path
        if not isinstance(kind, type):
            return path
        base = _KeptFile if issubclass(kind, FileFeedStorage) else _Kept
        return type(kind.__name__, (base, kind), {"_files": self})

    def closed(self, slot: Any) -> None:
        """Note that Scrapy has finished a file: a handler of `feed_slot_closed`."""
        storage = slot.storage
        if getattr(storage, "is_skipped", False) or getattr(storage, "has_failed", False):
            return
        most = slot.feed_options["batch_item_count"]
        whole = bool(most) and slot.itemcount >= most
        size, time_ns = 0, 0
        if isinstance(storage, _KeptFile):
            after = storage.after()
            if after is None:
                return
            size, time_ns = after.st_size, after.st_mtime_ns
        self.journal.note(Closed(slot.uri, slot.itemcount, whole, size, time_ns))


def _address(uri: Any) -> str:
    return str(uri.absolute()) if isinstance(uri, Path) else str(uri)


def _named(journal: Journal, number: int, function: Any) -> Callable[[dict[str, Any], Any], Any]:
    """A function for `uri_params` that gives each batch the times that it had at first."""
    own = load_object(function) if function else None

    def named(params: dict[str, Any], spider: Any) -> Any:
        batch = params["batch_id"]
        known = journal.state.named.get((number, batch))
        if known is None:
            known = Named(number, batch, *(params[name] for name in _TIMES))
            journal.note(known)
        params |= {"time": known.time, "batch_time": known.batch_time}
        return own(params, spider) if own is not None else params

    return named


class _Kept:
    """On top of any storage: what is stored elsewhere when a feed is complete.

    Attributes:
        is_skipped: nothing of this part of the feed is stored now.
        has_failed: storing it has failed.
    """

    _files: FeedFiles

    def __init__(self, uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(uri, *args, **kwargs)  # type: ignore[call-arg] # of the storage below
        self.feed_uri = uri
        self.feed_number = (kwargs.get("feed_options") or {}).get(NUMBER, 0)
        self.is_skipped = False
        self.has_failed = False

    def _is_done(self) -> bool:
        end = self._files.journal.state.closed.get(self.feed_uri)
        return end is not None and end.whole

    def open(self, spider: Any) -> Any:
        self.is_skipped = self._is_done()
        if self.is_skipped:
            return _nowhere()
        return super().open(spider)  # type: ignore[misc] # of the storage below

    def store(self, file: Any) -> Any:
        # What is appended elsewhere cannot be taken back: it waits for the end of the crawl.
        appends = isinstance(self, BlockingFeedStorage) and not getattr(self, "overwrite", True)
        if self._files.is_left and appends and not self.is_skipped:
            self.is_skipped = True
            self._files.fail(f"{self.feed_uri} is appended to: stored when all items are here")
        if self.is_skipped:
            file.close()
            return None
        stored = super().store(file)  # type: ignore[misc] # of the storage below
        if isinstance(stored, Deferred):
            stored.addErrback(self._failed)
        return stored

    def _failed(self, reason: Any) -> Any:
        self.has_failed = True
        return reason


class _KeptFile(_Kept):
    """On top of a storage of files of this machine."""

    path: str
    write_mode: str

    def open(self, spider: Any) -> Any:
        self.is_skipped = self._is_done()
        try:
            inner = _nowhere() if self.is_skipped else self._begin(spider)
        except OSError as exc:
            self._fail(exc)
            inner = _nowhere()
        return _Guarded(inner, self._fail)

    def _begin(self, spider: Any) -> Any:
        path, journal = Path(self.path).absolute(), self._files.journal
        known = journal.state.opened.get(self.feed_uri)
        size = path.stat().st_size if path.exists() else 0
        if known is None:
            before = size if self.write_mode == "ab" else 0
        else:
            before = min(known.before_bytes, size)
            if size:
                os.truncate(path, before)
        inner = super(_Kept, self).open(spider)  # type: ignore[misc] # of the storage below
        inode = path.stat().st_ino
        opened = Opened(self.feed_uri, self.feed_number, str(path), before, inode)
        journal.note(opened)
        return inner

    def store(self, file: Any) -> Any:
        inner = file.inner
        if self.is_skipped or self.has_failed:
            file.close()
            return None
        try:
            return super(_Kept, self).store(inner)  # type: ignore[misc] # of the storage below
        except OSError as exc:
            self._fail(exc)
            return None

    def _fail(self, exc: OSError) -> None:
        if not self.has_failed:
            self.has_failed = True
            self._files.fail(f"{self.path} could not be written: {exc.strerror or exc}")

    def after(self) -> os.stat_result | None:
        """What the file is like now that it is finished; None: it is not there, which is said."""
        opened = self._files.journal.state.opened[self.feed_uri]
        try:
            now = Path(opened.path).stat()
        except OSError:
            now = None
        if now is None or now.st_ino != opened.inode:
            self._files.fail(f"{self.path} was moved or deleted while it was written")
            return None
        return now


def _nowhere() -> BinaryIO:
    return Path(os.devnull).open("wb")


class _Guarded:
    """A file whose failure ends one feed, with one line, and none of the others."""

    def __init__(self, inner: BinaryIO, failed: Callable[[OSError], None]) -> None:
        self.inner = inner
        self._failed = failed
        self._broken = False

    def write(self, data: Any) -> int:
        if not self._broken:
            try:
                return self.inner.write(data)
            except OSError as exc:
                self._break(exc)
        return len(data)

    def flush(self) -> None:
        try:
            self.inner.flush()
        except OSError as exc:
            self._break(exc)

    def close(self) -> None:
        try:
            self.inner.close()
        except OSError as exc:
            self._break(exc)

    def _break(self, exc: OSError) -> None:
        self._broken = True
        self._failed(exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
