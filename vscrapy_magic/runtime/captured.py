"""Owns how what was captured of a failure becomes Scrapy's own objects again.

Runs in the sender's process. Without the spider's source a response is one to try selectors on;
where the source is loaded its request has callbacks, too.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from scrapy import Request
from scrapy.http import Response, TextResponse

from vscrapy_magic.store.failures import CapturedResponse, FailureRecord
from vscrapy_magic.store.values import CannotCrossError, PlainCodec, resolve_path

_FIELDS = ("method", "headers", "body", "cookies", "meta", "cb_kwargs", "flags", "priority")


def response_of(captured: CapturedResponse, request: Request | None = None) -> Response:
    """The response as the spider had it, of Scrapy's own classes only: no code of others runs.

    Args:
        request: what it answers.
    """
    kind = _kind(captured.kind)
    more: dict[str, Any] = {}
    if captured.encoding and issubclass(kind, TextResponse):
        more["encoding"] = captured.encoding
    return kind(
        captured.url,
        status=captured.status,
        headers=captured.headers,
        body=captured.body,
        flags=list(captured.flags),
        protocol=captured.protocol or None,
        request=request,
        **more,
    )


def _kind(path: str) -> type[Response]:
    if path.partition(":")[0].partition(".")[0] == "scrapy":
        try:
            found = resolve_path(path)
        except CannotCrossError:
            found = None  # of another Scrapy than this one
        if isinstance(found, type) and issubclass(found, Response):
            return found
    return TextResponse


def request_of(record: FailureRecord) -> Request | None:
    """The request as plain data, without callbacks; None when there was none."""
    if not record.request:
        return Request(record.url, method=record.method or "GET") if record.url else None
    fields = PlainCodec().decode(record.request)
    known = {name: fields[name] for name in _FIELDS if name in fields}
    return Request(fields.get("url", record.url), **known)


def fetched_response(data: Mapping[str, Any]) -> Response:
    """A page that was fetched to be looked at, with the request for it.

    Args:
        data: of the crawl's only item, see `fetching.response_record`.
    """
    kind = _kind(data["kind"])
    encoding = {"encoding": data["encoding"]} if issubclass(kind, TextResponse) else {}
    fields = {name: data[name] for name in ("status", "headers", "body", "flags", "protocol")}
    return kind(data["url"], request=Request(data["url"]), **fields, **encoding)


def plain_response(record: FailureRecord) -> Response | None:
    """The response of a failure, for one who looks at it; None when there was none.

    Of a failed errback it is that of the error which it was called with.
    """
    captured = record.response
    if captured is None and record.cause is not None:
        captured = record.cause.response
    if captured is None:
        return None
    try:
        request = request_of(record)
    except (msgspec.MsgspecError, TypeError, ValueError):  # as a newer version sends it
        request = None
    return response_of(captured, request)
