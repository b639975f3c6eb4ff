"""Owns the feed writer as its sender sees it: a process that gets the items of one crawl.

Runs in the sender's process. `deliver` is called from the thread that follows the crawl, `close`
from the one that waits for it. The process ends when its standard input does.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

import msgspec

from vscrapy_magic.sender.classes import feed_folder, feed_order
from vscrapy_magic.sender.options import CrawlOptions
from vscrapy_magic.sender.order import Order
from vscrapy_magic.store.inspection import FRAME_HEAD, FeedOrder
from vscrapy_magic.store.outputs import Output

# -P: the user's folder is the working folder, and must not hide modules of this package.
COMMAND: Final = (sys.executable, "-P", "-m", "vscrapy_magic.runtime.feeds")


class FeedWriter:
    """Writes the feeds of one crawl.

    Args:
        log: where the process says what it stored and what went wrong; None: where we do.
    """

    def __init__(self, order: FeedOrder, log: TextIO | None = None) -> None:
        self._lock = threading.Lock()
        self._broken = False
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # an interrupt at the terminal is the sender's business
        )
        self._send(msgspec.json.encode(order))

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Hand over items; blocks while the writer is slower than the crawl.

        A writer that has ended takes nothing: `close` says so, and the items stay in the spool.
        """
        for output in outputs:
            if output.item_count:
                self._send(output.items)

    def _send(self, body: bytes) -> None:
        stdin = self._process.stdin
        with self._lock:
            if self._broken or stdin is None or stdin.closed:
                return
            try:
                stdin.write(FRAME_HEAD.pack(len(body)) + body)
                stdin.flush()
            except OSError:
                self._broken = True

    def close(self) -> bool:
        """Finish the feeds and wait for it; whether all of them were written. Idempotent."""
        stdin = self._process.stdin
        with self._lock:
            if stdin is not None and not stdin.closed:
                with contextlib.suppress(OSError):  # it has ended already; its exit code says how
                    stdin.close()
        return self._process.wait() == 0 and not self._broken


class ClassFeeds:
    """The feed writer of a crawl with a class, if it has feeds; closed when the crawl is over."""

    def __init__(self, options: CrawlOptions, order: Order) -> None:
        self._folder: tempfile.TemporaryDirectory[str] = feed_folder()
        self._said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed with the writer
        feeds = feed_order(options, order, Path(self._folder.name))
        self._writer = FeedWriter(feeds, self._said) if feeds is not None else None

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Hand new outputs on; in the follower's thread."""
        if self._writer is not None:
            self._writer.deliver(outputs)

    def close(self) -> str:
        """Finish the feeds; what went wrong, or empty. Idempotent."""
        writer, self._writer = self._writer, None
        is_good = writer is None or writer.close()
        said = ""
        if not self._said.closed:
            with contextlib.suppress(io.UnsupportedOperation):
                self._said.seek(0)
                said = self._said.read().strip()
            self._said.close()
        self._folder.cleanup()
        return "" if is_good else said or "the feeds were not written"
