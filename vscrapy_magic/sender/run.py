"""Owns one crawl run from a terminal: orders it, streams its lines, writes its feeds, stops it.

Runs in the process of `vscrapy runspider`. The first interrupt stops, the second kills.
"""

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final, TextIO

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.follow import Follower
from vscrapy_magic.sender.order import Order, place
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, CrawlView
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState, SessionRecord
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.presence import Presence

EXIT_FINISHED: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
_HEAD: Final = struct.Struct(">I")
_FEED_SETTINGS: Final = "FEED_"
_LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Feeds(msgspec.Struct, frozen=True):
    """Feeds as on Scrapy's command line: appended to (`-o`) and overwritten (`-O`)."""

    append: Sequence[str] = ()
    overwrite: Sequence[str] = ()


class TerminalSink:
    """Prints lines with their worker's name; hands items to the feed writer."""

    def __init__(self, feeds: Feeds, order: Order, out: TextIO, *, quiet: bool) -> None:
        self._out = None if quiet else out
        self._writer: subprocess.Popen[bytes] | None = None
        if feeds.append or feeds.overwrite:
            self._writer = _start_writer(feeds, order)

    def keep(self, outputs: Sequence[Output]) -> None:
        if self._writer is None or self._writer.stdin is None:
            return
        try:
            for output in outputs:
                if output.item_count:
                    self._writer.stdin.write(_HEAD.pack(len(output.items)) + output.items)
            self._writer.stdin.flush()
        except OSError as exc:
            raise ConfigError("the feed writer has ended; its message is above") from exc

    def lines(self, lines: Sequence[LogLine]) -> None:
        if self._out is None:
            return
        for line in lines:
            at = time.strftime("%H:%M:%S", time.localtime(line.time_ms / 1000))
            level = _LEVELS.get(line.level, str(line.level))
            self._out.write(f"{line.worker} {at} [{line.logger}] {level}: {line.text}\n")
        self._out.flush()

    def close(self) -> int:
        """Finish the feeds; the writer's exit code."""
        if self._writer is None or self._writer.stdin is None:
            return 0
        with contextlib.suppress(OSError):  # it has ended already, and its exit code says how
            self._writer.stdin.close()
        return self._writer.wait()


def _start_writer(feeds: Feeds, order: Order) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vscrapy_magic.runtime.feeds"]
    command += [f"-o{uri}" for uri in feeds.append] + [f"-O{uri}" for uri in feeds.overwrite]
    settings = {k: v for k, v in order.settings.items() if k.startswith(_FEED_SETTINGS)}
    command += ["--spider", order.spider or order.path.stem]
    command += ["--settings", msgspec.json.encode(settings).decode()]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def run(store: Store, order: Order, feeds: Feeds, *, quiet: bool = False) -> int:
    """Run one crawl to its end in this terminal; the exit code.

    Raises:
        ConfigError: the order cannot be placed.
    """
    session = SessionRecord(
        session=SessionId(secrets.token_hex(8)),
        host=socket.gethostname(),
        pid=os.getpid(),
        kind="terminal",
        started_ms=int(time.time() * 1000),
    )
    presence, crawls = Presence(store), Crawls(store)
    presence.beat_session(session)
    spec = place(order, crawls, session.session)
    interrupts = _Interrupts()
    sink = TerminalSink(feeds, order, sys.stderr, quiet=quiet)
    told = 0

    def tick() -> None:
        nonlocal told
        if interrupts.count > told:
            told = interrupts.count
            _say("stopping; once more kills" if told == 1 else "killing")
            (crawls.stop if told == 1 else crawls.kill)(spec.crawl_id)

    try:
        with interrupts:
            view = Follower(store, spec.crawl_id, sink, session).follow(tick)
    finally:
        feed_code = sink.close()
        presence.end_session(session.session)
    _say(summary(view))
    if interrupts.count:
        return EXIT_INTERRUPTED
    done = view.state is CrawlState.FINISHED and feed_code == 0
    return EXIT_FINISHED if done else EXIT_FAILED


def summary(view: CrawlView) -> str:
    """One line on how a crawl ended."""
    totals = view.totals
    why = f" ({view.why or view.close_reason})" if view.why or view.close_reason else ""
    seconds = max(0, view.ended_ms - (view.started_ms or view.created_ms)) / 1000
    return (
        f"crawl {view.crawl_id} {view.state}{why}: {totals.items} items, {totals.pages} pages, "
        f"{totals.failures} failures in {seconds:.1f} s"
    )


def _say(text: str) -> None:
    sys.stderr.write(f"vscrapy: {text}\n")
    sys.stderr.flush()


class _Interrupts:
    """Counts interrupts instead of raising them, for as long as it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._main:
            self._old = signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, *_: object) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._old)
