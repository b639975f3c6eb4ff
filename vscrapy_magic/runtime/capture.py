"""Owns how one failure becomes a record: bounded, without secrets, enough to run it again.

Runs in the event loop of a child. What a record keeps is looked at while the exception is handled;
nothing of the exception, its frames or its response is held afterwards.
"""

import time
import traceback
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from scrapy import Request
from scrapy.http import Headers, Response
from twisted.python.failure import Failure

from vscrapy_magic.runtime.blame import path_name
from vscrapy_magic.runtime.codec import SpiderCodec
from vscrapy_magic.runtime.frames import (
    Entry,
    described,
    message_of,
    own_entries,
    place_in,
    type_name,
)
from vscrapy_magic.store.failures import (
    BODY_BYTES_MAX,
    CapturedResponse,
    Cause,
    FailureRecord,
    Frame,
    group_of,
    request_facts,
)
from vscrapy_magic.store.secrets import (
    Hider,
    mask_headers,
    mask_payload,
    mask_url,
    secret_values,
)
from vscrapy_magic.store.values import CannotCrossError

TRACEBACK_CHARS: Final = 20_000  # from the end: the failing line is there
MESSAGE_CHARS: Final = 2_000
REQUEST_BYTES_MAX: Final = 1024 * 1024  # of one packed request in a full capture
REQUEST_BYTES_SHORT: Final = 16 * 1024  # the same in a short one
ITEM_BYTES_MAX: Final = 256 * 1024
_BODY_LEVEL: Final = 1  # of zlib


@dataclass(frozen=True, slots=True)
class Seen:
    """What was at hand when something failed.

    Attributes:
        kind: one of `FailureKind`.
        error: the exception.
        component: path of the class whose method was called; empty for the spider.
        callback: name of what was called.
        item: None for none.
        cause: the exception that an errback or a `process_exception` was called with.
        inline: responses that the function awaited itself.
        packed: a request that cannot be made here, as it was queued.
    """

    kind: str
    error: BaseException
    component: str = ""
    callback: str = ""
    request: Any = None
    response: Any = None
    item: Any = None
    cause: BaseException | None = None
    inline: Sequence[Response] = ()
    packed: bytes = b""


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a failure costs little to know: where it was, and what it is counted with."""

    type: str
    entries: list[Entry]
    place: str
    group: str


def sight(seen: Seen) -> Sight:
    """Where something failed, and what it has in common with others."""
    type_, entries = type_name(seen.error), own_entries(seen.error)
    place = place_in(entries)
    where = place or f"{seen.component} {seen.callback}".lstrip()
    return Sight(type_, entries, place, group_of(seen.kind, type_, where))


class Recorder:
    """Makes the records of one child: of failures, and what those of pages consist of.

    Args:
        codec: packs requests and items; without it there are none in the records.
        hider: knows what is secret in this crawl.
        shows_secrets: whether requests keep what lets somebody in.
        body_bytes: of each body so many are kept; 0 for none.
    """

    def __init__(
        self,
        worker: str,
        *,
        code_version: int = 1,
        codec: SpiderCodec | None = None,
        hider: Hider | None = None,
        shows_secrets: bool = False,
        body_bytes: int = BODY_BYTES_MAX,
    ) -> None:
        self._worker = worker
        self._code_version = code_version
        self._codec = codec
        self._hider = hider or Hider()
        self._shows_secrets = shows_secrets
        self._body_bytes = body_bytes

    def full(self, seen: Seen, at: Sight, log: Iterable[str] = ()) -> FailureRecord:
        """Everything that is known."""
        hider = self._knowing(seen)
        record = self._record(seen, at, hider, with_locals=True)
        request = seen.request if isinstance(seen.request, Request) else None
        response = seen.response if isinstance(seen.response, Response) else None
        text = _traceback_of(seen.error)[-TRACEBACK_CHARS:]
        record = msgspec.structs.replace(
            record,
            traceback=self._hide(hider, text),
            request=self.packed(request),
            response=response and self.response(response, request),
            item=self._item(seen.item),
            inline=tuple(self.response(each, None) for each in seen.inline),
            cause=seen.cause and self._cause(seen.cause, request, hider),
            log=tuple(self._hide(hider, line) for line in log),
        )
        return self._with_packed(record, seen.packed)

    def short(self, seen: Seen, at: Sight) -> FailureRecord:
        """What tells it from others of its group, of which there are full records."""
        hider = self._knowing(seen)
        record = self._record(seen, at, hider, with_locals=False)
        request = seen.request if isinstance(seen.request, Request) else None
        record = msgspec.structs.replace(
            record,
            traceback=_brief(record.frames, f"{record.type}: {record.message}"),
            request=self.packed(request, REQUEST_BYTES_SHORT),
        )
        return self._with_packed(record, seen.packed)

    def tally(self, seen: Seen, at: Sight) -> FailureRecord:
        """One more of its group."""
        return FailureRecord(
            kind=seen.kind,
            type=at.type,
            message="",
            traceback="",
            place=at.place,
            group=at.group,
            component=seen.component,
            callback=seen.callback,
            worker=self._worker,
            code_version=self._code_version,
            time_ms=_now_ms(),
            counted=1,
        )

    def _record(self, seen: Seen, at: Sight, hider: Hider, *, with_locals: bool) -> FailureRecord:
        request = seen.request if isinstance(seen.request, Request) else None
        headers = _headers(request.headers) if request else {}
        frames = described(
            at.entries, hide=lambda text: self._hide(hider, text), with_locals=with_locals
        )
        return FailureRecord(
            kind=seen.kind,
            type=at.type,
            message=self._hide(hider, message_of(seen.error)[:MESSAGE_CHARS]),
            traceback="",
            place=at.place,
            group=at.group,
            url=self.url(request.url) if request else "",
            method=request.method if request else "",
            component=seen.component,
            callback=seen.callback,
            headers=self._shown(headers),
            frames=tuple(frames),
            worker=self._worker,
            code_version=self._code_version,
            time_ms=_now_ms(),
        )

    def response(self, response: Response, record_request: Request | None) -> CapturedResponse:
        """A response as a record keeps it; its request only where that is not the record's."""
        body, request = response.body, response.request
        if self._body_bytes < len(body):
            body = body[: self._body_bytes]
        is_other = request is not None and request is not record_request
        return CapturedResponse(
            url=self.url(response.url),
            status=response.status,
            kind=path_name(type(response)),
            headers=self._shown(_headers(response.headers)),
            packed=zlib.compress(self._hider.data(body), _BODY_LEVEL) if body else b"",
            body_bytes=len(response.body),
            encoding=str(getattr(response, "encoding", None) or ""),
            flags=tuple(map(str, response.flags or ())),
            protocol=str(response.protocol or ""),
            request=self.packed(request) if is_other else b"",
        )

    def _cause(self, error: BaseException, request: Request | None, hider: Hider) -> Cause:
        response = getattr(error, "response", None)
        return Cause(
            type=type_name(error),
            message=self._hide(hider, message_of(error)[:MESSAGE_CHARS]),
            response=self.response(response, request) if isinstance(response, Response) else None,
        )

    def _with_packed(self, record: FailureRecord, packed: bytes) -> FailureRecord:
        if not packed:
            return record
        facts = request_facts(packed)
        return msgspec.structs.replace(
            record, **(facts | {"request": self._hider.data(facts["request"])})
        )

    def packed(self, request: Request | None, bytes_max: int = REQUEST_BYTES_MAX) -> bytes:
        """The request as the codec makes it; empty where it cannot leave this process."""
        if request is None or self._codec is None:
            return b""
        try:
            payload = self._codec.encode_request(request)
        except CannotCrossError:
            return b""
        if len(payload) > bytes_max:
            return b""
        return payload if self._shows_secrets else self._hider.data(mask_payload(payload))

    def _item(self, item: Any) -> bytes:
        if item is None or self._codec is None:
            return b""
        try:
            packed = self._codec.describe_item(item)
        except Exception:  # noqa: BLE001 - what is wrong with it may be why there is a failure
            return b""
        return self._hider.data(packed) if len(packed) <= ITEM_BYTES_MAX else b""

    def _knowing(self, seen: Seen) -> Hider:
        """Knows the secrets of this failure's messages, too."""
        if self._shows_secrets:
            return self._hider
        found: set[str] = set()
        for message in (seen.request, seen.response, getattr(seen.response, "request", None)):
            if isinstance(message, Request | Response):
                found |= secret_values(_headers(message.headers))
        return self._hider.knowing(found) if found else self._hider

    def _hide(self, hider: Hider, text: str) -> str:
        return hider.values(text) if self._shows_secrets else hider.text(text)

    def url(self, url: str) -> str:
        """An address as a record shows it."""
        return self._hider.values(url if self._shows_secrets else mask_url(url))

    def _shown(self, headers: dict[str, list[str]]) -> dict[str, list[str]]:
        shown = headers if self._shows_secrets else mask_headers(headers)
        return {name: [self._hider.values(value) for value in shown[name]] for name in shown}


def error_of(error: Any) -> BaseException:
    """The exception of a failure, with its traceback even where Twisted keeps that apart."""
    if isinstance(error, Failure):
        exc = error.value
        if exc is None:
            return RuntimeError(repr(error))
        if exc.__traceback__ is None:
            exc = exc.with_traceback(error.getTracebackObject())  # type: ignore[no-untyped-call]
        return exc
    return error if isinstance(error, BaseException) else RuntimeError(repr(error))


def _traceback_of(exc: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exc))
    except Exception as failed:  # noqa: BLE001 - as the text of the exception, or its notes
        return f"{type_name(exc)}: <its traceback raised {type(failed).__name__}>"


def _brief(frames: Sequence[Frame], last: str) -> str:
    """A traceback of the user's own lines."""
    lines = ["Traceback (most recent call last):"]
    for frame in frames:
        lines.append(f'  File "{frame.file}", line {frame.line}, in {frame.function}')
        if frame.source:
            lines.append(f"    {frame.source}")
    return "\n".join([*lines, last])


def _headers(headers: Headers) -> dict[str, list[str]]:
    return {
        name.decode("latin-1"): [value.decode("latin-1") for value in values]
        for name, values in dict.items(headers)
    }


def _now_ms() -> int:
    return int(time.time() * 1000)
