"""Owns the writing of feeds at the sender, by Scrapy's own exporters.

Run by a sender as `python -m vscrapy_magic.runtime.feeds`, in its user's folder: it is a Scrapy
crawl without requests whose spider yields the items that are in the sender's spool, so that
formats, FEEDS options, storages and URI parameters are Scrapy's own.

The spool is the log, and feeds are made of it: standard input (`store/inspection.py`) only says
that it has grown, and that it grows no more. So nothing is lost between the two, whoever is killed.
When the sender is gone, what is in the log is written, and the feeds are finished as valid files;
a process that starts later writes them again from the first item (`feed_files.py`). Two processes
never write the feeds of one crawl: a lock sees to it.
"""

import asyncio
import fcntl
import io
import logging
import os
import select
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from scrapy import Spider, signals
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.extensions.feedexport import FeedExporter
from scrapy.settings import Settings
from scrapy.utils.misc import load_object
from scrapy.utils.project import ENVVAR

from vscrapy_magic.failpoints import fail_point
from vscrapy_magic.runtime.feed_files import FeedFiles
from vscrapy_magic.runtime.feed_items import Classes, FeedCodec
from vscrapy_magic.runtime.source import (
    CMDLINE,
    Loaded,
    SourceError,
    describe,
    feeds_of,
    load,
    load_plain,
    spider_facts,
)
from vscrapy_magic.store.feed_journal import At, Began, Ended, Journal, Note, Ordered
from vscrapy_magic.store.frames import Frames
from vscrapy_magic.store.inspection import END, FeedOrder, FeedStart
from vscrapy_magic.store.scratch import hold

logger = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
EXIT_LOCKED: Final = 3  # another process writes these feeds
LOCK_WITHIN_S: Final = 30.0  # a writer whose sender is gone ends by itself
NOTES_MAX: Final = 20  # lines for the user; more are counted
_LOCK_LOOK_S: Final = 0.05
_PARENT_LOOK_S: Final = 0.5  # a process that the user's code forked may hold our input open
_INPUT_BYTES: Final = 64 * 1024
_NOTE_S: Final = 1.0  # between two notes of how far it is
_TEMPORARY: Final = "FEED_TEMPDIR"  # where storages keep a file until it is uploaded
_PREFIXES: Final = ("FEED", "AWS_", "GCS_", "FTP_")  # settings that exporters and storages read
_SETTINGS: Final[dict[str, Any]] = {
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "LOG_ENABLED": False,
}


class Logged(msgspec.Struct, frozen=True):
    """What feeds need of an entry of the log (`store.outputs.Output`)."""

    item_count: int
    items: bytes


class Log:
    """The sender's log, read as it grows.

    Args:
        fd: standard input.
        pid: of the sender.
    """

    def __init__(self, path: str, fd: int, pid: int) -> None:
        self._frames = Frames(Path(path), writable=False)
        self._fd = fd
        self._pid = pid
        self.is_over = False
        self.is_left = False

    def __len__(self) -> int:
        self._frames.scan()
        return len(self._frames)

    def __getitem__(self, number: int) -> Logged:
        return msgspec.msgpack.decode(self._frames[number], type=Logged)

    def wait(self) -> None:
        """Block until the log has grown, or grows no more."""
        while not self.is_over:
            if select.select([self._fd], [], [], _PARENT_LOOK_S)[0]:
                said = os.read(self._fd, _INPUT_BYTES)
                self.is_left = not said
                self.is_over = self.is_left or END in said
                return
            self.is_left = self.is_over = os.getppid() != self._pid


class FeedSpider(Spider):
    """Yields what its sender collected; has the attributes that feed addresses may name."""

    name = "feeds"
    feed_log: Log
    feed_files: FeedFiles
    feed_codec: FeedCodec

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> "FeedSpider":
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.feed_files.closed, signals.feed_slot_closed)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        loop, log, journal = asyncio.get_running_loop(), self.feed_log, self.feed_files.journal
        entries = items = 0
        noted_at = 0.0
        while True:
            is_over = log.is_over  # before the look: nothing is added after that
            for number in range(entries, len(log)):
                entry = log[number]
                for record in self.feed_codec.decode(entry.items) if entry.item_count else ():
                    yield self.feed_codec.item(record)
                    fail_point("feed_mid_item")
                entries, items = entries + 1, items + entry.item_count
                if time.monotonic() - noted_at > _NOTE_S:
                    journal.note(At(entries, items))
                    noted_at = time.monotonic()
            if entries != journal.state.entries:
                journal.note(At(entries, items))
            if is_over:
                break
            await loop.run_in_executor(None, log.wait)
        self.feed_files.is_left = log.is_left
        fail_point("feed_before_close")


class Told(logging.Handler):
    """Notes problems, and what was stored, for the user; counts errors: Scrapy only logs them.

    Args:
        since: items that the process before this one had written; 0 for none.
    """

    def __init__(self, journal: Journal, since: int) -> None:
        super().__init__()
        self.errors = 0
        self._journal = journal
        self._after = f" (continued at item {since})" if since else ""
        self._said: set[str] = set()
        self._more = 0

    def emit(self, record: logging.LogRecord) -> None:
        is_bad = record.levelno >= logging.ERROR
        self.errors += is_bad
        is_stored = record.name == FeedExporter.__module__ and record.levelno == logging.INFO
        if record.levelno < logging.WARNING and not is_stored:
            return
        text = record.getMessage() + (self._after if is_stored else "")
        exc = record.exc_info[1] if record.exc_info else None
        if exc is not None:
            text = f"{text}: {describe(exc)}"
        if text in self._said or len(self._said) >= NOTES_MAX:
            self._more += 1
            return
        self._said.add(text)
        self._journal.note(Note(" ".join(text.split()), bad=is_bad))

    def finish(self) -> None:
        """Say how many lines were not said."""
        if self._more:
            self._journal.note(Note(f"... {self._more} more lines like these"))


def feed_settings(wished: Settings, files: FeedFiles, temporary: Path) -> Settings:
    """What exporters and storages may read of the spider's settings, and nothing that runs."""
    settings, scrapys = Settings(), set(Settings().keys())
    for name, value in wished.items():
        if name not in scrapys or str(name).startswith(_PREFIXES):
            settings.set(name, value, priority=CMDLINE)
    exporters = {
        path: order
        for path, order in wished.getdict("EXTENSIONS").items()
        if issubclass(load_object(path), FeedExporter)
    }
    settings.set("EXTENSIONS", exporters, priority=CMDLINE)
    settings.set("FEEDS", files.feeds(feeds_of(wished), wished), priority=CMDLINE)
    settings.set("FEED_URI", None, priority=CMDLINE)
    settings.set("FEED_STORAGES", files.storages(wished), priority=CMDLINE)
    settings.setdict(_SETTINGS, priority=CMDLINE)
    if not settings.get(_TEMPORARY):
        settings.set(_TEMPORARY, str(temporary), priority=CMDLINE)
    return settings


def lock(path: str) -> BinaryIO | None:
    """The lock, held; None when another process does not let go of it."""
    file = Path(path).open("ab")  # noqa: SIM115 - held until the process ends
    until = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return None
            time.sleep(_LOCK_LOOK_S)
        else:
            return file


def _loaded(order: FeedOrder) -> Loaded:
    if order.plain:
        return load_plain(order.source)
    if order.project:
        os.environ[ENVVAR] = order.project
    return load(order.source)


def write(start: FeedStart, journal: Journal) -> bool:
    """Write the feeds; whether all of them hold what is in the log."""
    since = journal.state.items
    journal.note(Began())
    files = FeedFiles(journal, start.alive_ns)
    try:
        loaded = _loaded(start.order)
        facts = spider_facts(loaded, start.order.source.args)
        settings = feed_settings(loaded.settings, files, _temporary(start))
    except SourceError as exc:
        files.fail(f"no feed is written: {exc}")
        return False
    feeds = settings.getdict("FEEDS")
    if not feeds:
        return not files.has_failed
    if not journal.state.uris:
        journal.note(Ordered(tuple(feeds)))
    told = Told(journal, since)
    logging.root.setLevel(logging.INFO)
    logging.root.addHandler(told)
    log = Log(start.log, sys.stdin.fileno(), start.pid)
    process = CrawlerProcess(settings)
    process.crawl(
        FeedSpider,
        **facts,
        feed_log=log,
        feed_files=files,
        feed_codec=FeedCodec(Classes(loaded.entry)),
    )
    process.start(stop_after_crawl=True, install_signal_handlers=False)
    told.finish()
    return not (process.bootstrap_failed or told.errors or files.has_failed)


def _temporary(start: FeedStart) -> Path:
    """The folder for files on their way; beside the journal, so that it goes with the spool."""
    return Path(start.journal).with_name("temporary")


def main() -> int:
    """Write the feeds of one crawl; the exit code."""
    with io.FileIO(sys.stdin.fileno(), closefd=False) as told:  # unbuffered: the rest is awaited
        start = msgspec.json.decode(told.readline(), type=FeedStart)
    held = lock(start.lock)
    if held is None:
        return EXIT_LOCKED
    hold(Path(start.journal).parent)  # the sender may end before us
    temporary = _temporary(start)
    shutil.rmtree(temporary, ignore_errors=True)  # what a writer that was killed has left
    temporary.mkdir(mode=0o700)
    journal = Journal(Path(start.journal))
    is_good = write(start, journal)
    journal.note(Ended(is_good))
    shutil.rmtree(temporary, ignore_errors=True)
    return 0 if is_good else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
