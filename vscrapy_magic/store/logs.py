"""Owns the log lines of a crawl on their way from workers to the sender.

Supervisors append batches (many lines in one stream entry: two million lines a second against
twelve thousand one by one), senders read. Bounded; what a full stream pushed out is counted by its
numbers.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, WorkerName, crawl_key

LINES_PER_BATCH: Final = 500  # lines in one stream entry
_BATCHES_KEPT: Final = 1000  # stream entries kept, so that 8 KB each makes 8 MB
ENTRIES_AT_ONCE: Final = 100  # batches in one reply
_LEVEL: Final = 1  # of zlib; log lines shrink to a fifth even so


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line that a worker's process wrote.

    Attributes:
        level: logging level; plain output has INFO (stdout) or WARNING (stderr).
        source: `log`, `stdout`, `stderr` or `worker`.
        dropped: lines that had to be dropped before this one.
    """

    time_ms: int
    level: int
    logger: str
    text: str
    worker: WorkerName
    source: str = "log"
    dropped: int = 0


class Logs:
    """Log streams of crawls; thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, crawl_id: CrawlId, lines: Sequence[LogLine]) -> None:
        """Append lines, in as few entries as the bounds allow, in one round trip.

        Those of a crawl that is not kept any more go nowhere: nobody could find them, and what
        they are appended to would have no end.
        """
        key = crawl_key(crawl_id, "log")
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            for at in range(0, len(lines), LINES_PER_BATCH):
                batch = lines[at : at + LINES_PER_BATCH]
                data = zlib.compress(msgspec.msgpack.encode(batch), _LEVEL)
                pipe.xadd(
                    key,
                    {"lines": data, "count": len(batch)},
                    maxlen=_BATCHES_KEPT,
                    approximate=True,
                    nomkstream=True,
                )
            pipe.execute()

    def read(
        self, crawl_id: CrawlId, after: str = "0-0", *, entries: int = ENTRIES_AT_ONCE
    ) -> tuple[list[LogLine], str]:
        """Lines of up to `entries` batches after an entry id, and the id to go on from."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            self.ask(pipe, crawl_id, after, entries=entries)
            (found,) = pipe.execute()
        return self.found(found, after)

    def end(self, crawl_id: CrawlId) -> str:
        """The id after which no line has come yet."""
        with self._store.errors_wrapped():
            found = self._store.client.xrevrange(crawl_key(crawl_id, "log"), count=1)
        return str(found[0][0].decode()) if found else "0-0"

    def ask(
        self, pipe: Any, crawl_id: CrawlId, after: str, *, entries: int = ENTRIES_AT_ONCE
    ) -> None:
        """Add the question to a pipeline; `found` takes the reply."""
        pipe.xrange(crawl_key(crawl_id, "log"), min=f"({after}", count=entries)

    def found(self, entries: Sequence[Any], after: str) -> tuple[list[LogLine], str]:
        """Lines in the reply, and the id to go on from."""
        lines: list[LogLine] = []
        for entry_id, fields in entries:
            after = entry_id.decode()
            data = zlib.decompress(fields[b"lines"])
            lines += msgspec.msgpack.decode(data, type=list[LogLine])
        return lines, after
