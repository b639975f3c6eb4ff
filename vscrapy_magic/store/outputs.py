"""Owns the way of items, failures and recorded pages from commits to the sender.

The sender reads entries in the order of commit numbers, keeps them in its spool, and acknowledges;
the server keeps what is not acknowledged, and the last entry that was: by its nonce a sender knows
that the server still holds the history that it has read.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import redis
from redis.exceptions import NoScriptError

from vscrapy_magic.errors import CrawlNotFoundError, NotCollectorError, StoreRolledBackError
from vscrapy_magic.store.blobs import unpack_blob
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, crawl_key, crawl_prefix
from vscrapy_magic.store.scripts import Script, load_script
from vscrapy_magic.store.values import Codec

ENTRIES_AT_ONCE: Final = 100  # of about 1 MB at most each
ORIGIN_NAMES: Final = {"start": "start()", "idle": "spider_idle"}  # of leases without a request


class Witness(msgspec.Struct, frozen=True):
    """Names one entry of one history: what a sender keeps of the last entry that it has read."""

    commit_no: int
    nonce: str


class Claim(msgspec.Struct, frozen=True):
    """By what a session collects a crawl; the default is of a crawl that nobody collects.

    Attributes:
        no: rises with each collector of the crawl.
        place: name of the folder where outputs are kept.
        host: where that is.
    """

    no: int = 0
    session: str = ""
    place: str = ""
    host: str = ""


NOBODY: Final = Claim()


class Output(msgspec.Struct, frozen=True):
    """What one commit brought to the sender.

    Attributes:
        commit_no: rises by at least one from entry to entry.
        nonce: names the step that wrote the entry.
        total_bytes: running total of the crawl, for the acknowledgement.
        items: packet of the runtime's codec; empty when `item_count` is 0.
        failures: as `items`.
        buried: payload of a request that was given up after three strikes; None for others. Of
            `start()` and `spider_idle`, which have none, a mapping with the name as `url`.
        code_version: of the code that brought it.
        record_count: recorded pages; None: whoever wrote the entry knows of none.
        records: packet of them; empty in a spool, which keeps them apart.
    """

    commit_no: int
    nonce: str
    total_bytes: int
    item_count: int
    items: bytes
    failure_count: int
    failures: bytes
    buried: bytes | None = None
    code_version: int = 1
    record_count: int | None = None
    records: bytes = b""

    @property
    def witness(self) -> Witness:
        return Witness(self.commit_no, self.nonce)


class Outputs:
    """The outputs of one crawl, for its one collecting sender."""

    def __init__(self, store: Store, crawl_id: CrawlId) -> None:
        self._store = store
        self._crawl_id = crawl_id
        self._key = crawl_key(crawl_id, "out")

    def read(self, after: Witness | None = None) -> list[Output]:
        """Entries after the one that was read last, oldest first; empty when there are none yet.

        Raises:
            StoreRolledBackError: the server does not hold the entry that was read last.
        """
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=False)
            self.ask(pipe, after)
            (entries,) = pipe.execute()
        return self.found(entries, after)

    def ask(self, pipe: Any, after: Witness | None) -> None:
        """Add the question to a pipeline; `found` takes the reply."""
        start = "-" if after is None else f"{after.commit_no}-0"
        pipe.xrange(self._key, min=start, count=ENTRIES_AT_ONCE)

    def found(self, entries: Sequence[Any], after: Witness | None) -> list[Output]:
        """Outputs in the reply.

        Raises:
            StoreRolledBackError: the server does not hold the entry that was read last.
        """
        outputs = [_output(entry_id, fields) for entry_id, fields in entries]
        if after is None:
            return outputs
        if not outputs or outputs[0].witness != after:
            raise self._rolled_back(after.commit_no)
        return outputs[1:]

    def _rolled_back(self, commit_no: int) -> StoreRolledBackError:
        return StoreRolledBackError(
            f"crawl {self._crawl_id}: the server lost commit {commit_no}, which had been read "
            "already; run the crawl again, on a server with appendfsync always"
        )

    def ack(self, output: Output, claim: Claim = NOBODY, items: int = 0) -> None:
        """Everything up to this entry is kept by the sender. Idempotent.

        Args:
            claim: by what it collects.
            items: that it keeps in that place so far.

        Raises:
            NotCollectorError: it does not collect the crawl (any more); nothing was changed.
            StoreRolledBackError: the server does not hold this entry: it lost acknowledged commits.
            CrawlNotFoundError: the crawl is past its retention.
        """
        self._check_ack(self._store.call(*self._ack_call(output, claim, items)), output)

    def ask_ack(self, pipe: Any, output: Output, claim: Claim, items: int) -> None:
        """Add the acknowledgement to a pipeline; `acked` takes the reply."""
        script, keys, args = self._ack_call(output, claim, items)
        pipe.evalsha(script.sha1, len(keys), *keys, *args)

    def acked(self, reply: Any, output: Output, claim: Claim, items: int) -> None:
        """Understand the reply; raises as `ack`."""
        if isinstance(reply, NoScriptError):
            self.ack(output, claim, items)  # a server that was restarted gets the script with it
        else:
            self._check_ack(reply, output)

    def _ack_call(
        self, output: Output, claim: Claim, items: int
    ) -> tuple[Script, tuple[str], list[str | int]]:
        keys = (crawl_prefix(self._crawl_id),)
        return (
            load_script("ack"),
            keys,
            [
                *(output.commit_no, output.nonce, output.total_bytes),
                *(claim.no, claim.session, claim.place, items, claim.host),
            ],
        )

    def _check_ack(self, reply: Any, output: Output) -> None:
        if reply[0] == b"lost":
            raise NotCollectorError(
                f"crawl {self._crawl_id}: another session collects it; commit {output.commit_no} "
                "was not acknowledged"
            )
        if reply[0] == b"rolled_back":
            raise self._rolled_back(output.commit_no)
        if reply[0] == b"unknown":
            raise CrawlNotFoundError(f"crawl {self._crawl_id}: past its retention")


class Doorbell:
    """Blocks until a crawl brings something; used by one thread."""

    def __init__(self, client: redis.Redis, crawl_id: CrawlId) -> None:
        """Listen with a client of `Store.blocking_client`."""
        self._client = client
        self._keys = (crawl_key(crawl_id, "out"), crawl_key(crawl_id, "log"))

    def wait(
        self,
        after: Witness | None,
        log_after: str,
        timeout_s: float,
        *,
        with_outputs: bool = True,
    ) -> bool:
        """Whether there came outputs or log lines beyond those; False when `timeout_s` passed.

        Errors are the driver's: call it inside `Store.errors_wrapped`.

        Args:
            with_outputs: False for those who do not collect: what is there would always ring.
        """
        out, log = self._keys
        streams: dict[Any, Any] = {log: log_after}
        if with_outputs:
            streams[out] = f"{after.commit_no}-0" if after else "0-0"
        return bool(self._client.xread(streams, count=1, block=max(1, int(1000 * timeout_s))))


def _output(entry_id: bytes, fields: dict[bytes, bytes]) -> Output:
    buried = None
    if b"blob" in fields:
        buried = unpack_blob(fields[b"blob"])[int(fields[b"index"]) - 1]
    elif b"buried" in fields:
        buried = Codec().encode({"url": ORIGIN_NAMES[fields[b"buried"].decode()]})
    return Output(
        commit_no=int(entry_id.partition(b"-")[0]),
        nonce=fields[b"nonce"].decode(),
        total_bytes=int(fields[b"total"]),
        item_count=int(fields[b"item_count"]),
        items=fields[b"items"],
        failure_count=int(fields[b"failure_count"]),
        failures=fields[b"failures"],
        buried=buried,
        code_version=int(fields.get(b"code", 1)),
        record_count=int(fields[b"record_count"]) if b"record_count" in fields else None,
        records=fields.get(b"records", b""),
    )
