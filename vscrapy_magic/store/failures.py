"""Owns what is kept of one failure: an exception that user code let go, with what led to it.

Made in children, read by senders. Plain data only, in bounds: reading one runs no code.
"""

import enum
import zlib
from hashlib import blake2b
from typing import Any, Final

import msgspec

from vscrapy_magic.store.secrets import mask_headers, mask_payload, mask_url
from vscrapy_magic.store.values import PlainCodec

BODY_BYTES_MAX: Final = 256 * 1024  # of a captured response, before compression
STRIKES_MAX: Final = 3  # as in lua/leave.lua
GROUP_BYTES: Final = 6


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
    LOAD = "load"  # the source, the spider or a component cannot be made: the crawl ends
    DOWNLOAD = "download"  # and nobody heard of it
    REQUEST = "request"  # it cannot be made in this process
    SPIDER_MIDDLEWARE = "spider middleware"
    DOWNLOADER_MIDDLEWARE = "downloader middleware"
    SIGNAL = "signal"  # a handler of one, so of an extension
    SERIALIZATION = "serialization"  # an item of which a part went as text
    TASK = (
        "task"  # what nobody waited for: an asyncio task, a Deferred, a thread, a dropped generator
    )
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
        counted: 0 for one failure; otherwise so many more of its group, of which nothing but this
            number is kept.
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
    counted: int = 0
    delivered: bytes = b""
    delivered_more: bool = False


class FailureGroup(msgspec.Struct, frozen=True):
    """Failures of one kind at one place.

    Attributes:
        numbers: places of its failures in the crawl, from 1.
        workers: who met them, sorted.
        left_out: how many more there were of which nothing is kept.
        retried: how many of them were put back.
    """

    first: FailureRecord
    numbers: tuple[int, ...]
    workers: tuple[str, ...]
    left_out: int = 0
    retried: int = 0

    @property
    def count(self) -> int:
        return len(self.numbers) + self.left_out


def group_of(*parts: str) -> str:
    """What all failures of one kind at one place have in common."""
    return blake2b("\0".join(parts).encode(errors="replace"), digest_size=GROUP_BYTES).hexdigest()


def read_failures(packet: bytes) -> list[FailureRecord]:
    """Failures of one commit, as its child packed them; none of an empty packet."""
    return msgspec.msgpack.decode(packet, type=list[FailureRecord]) if packet else []


def buried(payload: bytes) -> FailureRecord:
    """The failure of a request that was given up because its children died.

    Args:
        payload: the request as the runtime packed it, or a mapping with what else was given up as
            its `url`.
    """
    facts = request_facts(payload)
    return FailureRecord(
        kind=FailureKind.BURIED,
        type="buried",
        message=f"given up: {STRIKES_MAX} children died while they worked on it",
        traceback="",
        group="buried",
        attempt=STRIKES_MAX,
        **facts,
    )


def request_facts(payload: bytes) -> dict[str, Any]:
    """Fields of a record that tell of a packed request, without its secrets."""
    fields = PlainCodec().decode(payload)
    callback = fields.get("callback", "")
    headers = {
        str(name, "latin-1"): [str(value, "latin-1") for value in values]
        for name, values in fields.get("headers", {}).items()
    }
    is_request = ":" in str(fields.get("url", ""))  # others are `start()` and `spider_idle`
    return {
        "url": mask_url(str(fields.get("url", ""))),
        "method": str(fields.get("method", "GET")) if is_request else "",
        "callback": callback if isinstance(callback, str) else "",
        "headers": mask_headers(headers),
        "request": mask_payload(payload) if is_request else b"",
    }
