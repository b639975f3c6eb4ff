"""Owns what is kept of one failure: an exception that user code let go, with what led to it.

Made in children, read by senders. Plain data only, in bounds: reading one runs no code.
"""

import enum
import zlib
from typing import Final

import msgspec

BODY_BYTES_MAX: Final = 256 * 1024  # of a captured response, before compression
STRIKES_MAX: Final = 3  # as in lua/leave.lua
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})
_MASK: Final = "***"


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame of a traceback that lies in the user's code.

    Attributes:
        file: as tracebacks show it: `Cell In[3]`, or the path within what was shipped.
        source: text of the line.
        locals: bounded reprs of the local variables, by name.
    """

    file: str
    line: int
    function: str
    source: str = ""
    locals: dict[str, str] = {}


class FailureKind(enum.StrEnum):
    """Where user code failed, in the words that users read."""

    CALLBACK = "callback"
    ERRBACK = "errback"
    ITEM = "item"  # a pipeline
    START = "start"
    DOWNLOAD = "download"  # and nobody heard of it
    REQUEST = "request"  # it cannot be made in this process
    SPIDER_MIDDLEWARE = "spider middleware"
    DOWNLOADER_MIDDLEWARE = "downloader middleware"
    SIGNAL = "signal"  # a handler of one, so of an extension
    SERIALIZATION = "serialization"  # an item of which a part went as text
    TASK = "task"  # an asyncio task, or a Deferred, that nobody waited for
    CRASH = "crash"  # the process died of it
    MEMORY = "memory"  # the process was ended for the memory that it used
    BURIED = "buried"  # a request that was given up


class CapturedResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A response as it was when the exception happened.

    Attributes:
        kind: path of its class.
        packed: the body, zlib; at most `BODY_BYTES_MAX` of it.
        body_bytes: length of the whole body.
        encoding: of its text, as it was told apart there; empty for one that has no text.
        request: the request that it answers, payload of the runtime's codec; empty where the
            record's own request is meant.
    """

    url: str
    status: int
    kind: str
    headers: dict[str, list[str]] = {}
    packed: bytes = b""
    body_bytes: int = 0
    encoding: str = ""
    flags: tuple[str, ...] = ()
    protocol: str = ""
    request: bytes = b""

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.packed) if self.packed else b""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the body was cut off."""
        return len(self.body) == self.body_bytes


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error that an errback or a `process_exception` was called with.

    Attributes:
        type: qualified name of its class.
    """

    type: str
    message: str = ""
    response: CapturedResponse | None = None


class FailureRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One failure.

    Attributes:
        kind: where: one of `FailureKind`.
        type: qualified name of the exception's class.
        message: text of the exception.
        traceback: as Python prints it.
        place: the user's own innermost line: `Cell In[3], line 12, in parse`.
        group: the same for all failures of one kind at one place.
        component: path of the class whose method Scrapy called, `__main__:PricePipeline`; empty
            for the spider itself.
        callback: name of the function that was called.
        request: payload of the runtime's codec.
        item: what a pipeline, or `process_spider_output`, was given: a record as `encode_item`
            makes it; empty for none.
        inline: responses that the function awaited itself, in order.
        cause: what an errback or a `process_exception` was called with.
        frames: those in the user's code, outermost first.
        log: the lines logged before it.
        delivered: content keys of what else its run had brought, 8 bytes each, joined; stands in
            the first failure of a commit.
        delivered_more: whether it had brought more than is listed there.
        attempt: which run of the lease it was.
    """

    kind: str
    type: str
    message: str
    traceback: str
    place: str = ""
    group: str = ""
    url: str = ""
    method: str = ""
    component: str = ""
    callback: str = ""
    headers: dict[str, list[str]] = {}
    request: bytes = b""
    response: CapturedResponse | None = None
    item: bytes = b""
    inline: tuple[CapturedResponse, ...] = ()
    cause: Cause | None = None
    frames: tuple[Frame, ...] = ()
    log: tuple[str, ...] = ()
    worker: str = ""
    attempt: int = 1
    code_version: int = 1
    time_ms: int = 0
    delivered: bytes = b""
    delivered_more: bool = False


class FailureGroup(msgspec.Struct, frozen=True):
    """Failures of one kind at one place.

    Attributes:
        numbers: places of its failures in the crawl, from 1.
        workers: who met them, sorted.
        retried: how many of them were put back.
    """

    first: FailureRecord
    numbers: tuple[int, ...]
    workers: tuple[str, ...]
    retried: int = 0

    @property
    def count(self) -> int:
        return len(self.numbers)


def mask_headers(headers: dict[str, list[str]]) -> dict[str, list[str]]:
    """Headers as they may be shown: without what would let somebody in."""
    return {
        name: [_MASK] * len(values) if name.lower() in _SECRET_HEADERS else values
        for name, values in headers.items()
    }


def read_failures(packet: bytes) -> list[FailureRecord]:
    """Failures of one commit, as its child packed them; none of an empty packet."""
    return msgspec.msgpack.decode(packet, type=list[FailureRecord]) if packet else []


def buried(url: str) -> FailureRecord:
    """The failure of a request that was given up because its children died."""
    return FailureRecord(
        kind=FailureKind.BURIED,
        type="buried",
        message=f"given up: {STRIKES_MAX} children died while they worked on it",
        traceback="",
        group="buried",
        url=url,
        attempt=STRIKES_MAX,
    )
