"""Owns one HTTP/1.1 connection of the demo site: bytes in, `Request`; `Reply`, bytes out.

Runs in the demo site's process, on its event loop. Hand-written, because it must be cheap enough
not to be what a benchmark measures: no task and no coroutine per request, keep-alive and
pipelining in order. Not for the open internet.
"""

import asyncio
import gzip
import logging
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Protocol
from urllib.parse import parse_qsl, unquote

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 16 * 1024 * 1024  # head and body; a longer request ends the connection
GZIP_FROM_BYTES = 256  # shorter bodies do not get smaller
GZIP_UP_TO_BYTES = 64 * 1024  # longer ones would hold the only loop; they go out as they are
GZIP_CACHE = 1024  # compressed bodies kept
HTML = "text/html; charset=utf-8"

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `target` is the undecoded path and query, `headers` as sent."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keep_alive: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(unquote(part) for part in self.path.split("/") if part)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        try:
            return {
                name: morsel.value for name, morsel in SimpleCookie(self.header("cookie")).items()
            }
        except CookieError:
            return {}

    def header(self, name: str) -> str:
        """The value of the first header of this name (lower case), or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `delay_s` holds it back without holding up anybody else."""

    body: bytes
    status: int = 200
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0


class Site(Protocol):
    """What a connection asks: `answer` for each request, then `done` when it is sent or lost."""

    def answer(self, request: Request) -> Reply: ...

    def done(self, request: Request) -> None: ...


@lru_cache(GZIP_CACHE)
def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 6, mtime=0)


def wire(request: Request, reply: Reply) -> bytes:
    """The bytes of `reply` for `request`: no body for HEAD, gzip where the client takes it."""
    body = reply.body
    extra = ""
    small = GZIP_FROM_BYTES <= len(body) <= GZIP_UP_TO_BYTES
    if small and "gzip" in request.header("accept-encoding").lower():
        body = _gzipped(body)
        extra = "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
    head = (
        f"HTTP/1.1 {reply.status} {_PHRASES.get(reply.status, 'Unknown')}\r\n"
        f"Server: vscrapy-demo\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}{lines}"
        f"Connection: {'keep-alive' if request.keep_alive else 'close'}\r\n\r\n"
    ).encode("latin-1")
    return head if request.method == "HEAD" else head + body


class BadRequestError(ValueError):
    """What came is not an HTTP request that this server reads."""


class Connection(asyncio.Protocol):
    """Parses, asks the site, writes; answers leave in the order of their requests."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._buffer = bytearray()
        self._need = 0  # bytes that the request under way takes in all, once its head is known
        self._current: tuple[Request, asyncio.TimerHandle] | None = None
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self._buffer.clear()
        if self._current is not None:
            request, timer = self._current
            self._current = None
            timer.cancel()
            self._site.done(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_REQUEST_BYTES:
            self._transport.abort()
            return
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        while self._current is None and not self._paused and not self._transport.is_closing():
            try:
                request = self._take()
            except BadRequestError as error:
                body = f"{error}\n".encode()
                bad = Request("GET", "/", (), b"", keep_alive=False)
                self._transport.write(wire(bad, Reply(body, 400, "text/plain")))
                self._transport.close()
                return
            if request is None:
                return
            self._answer(request)

    def _take(self) -> Request | None:
        """The next whole request of the buffer, or None while it has not all come."""
        if len(self._buffer) < self._need:
            return None
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequestError(f"not a request line: {first[:80]!r}")
        method, target, version = parts
        headers = tuple(
            (name.strip(), value.strip())
            for name, colon, value in (line.partition(":") for line in lines)
            if colon
        )
        known = {name.lower(): value for name, value in headers}
        if "transfer-encoding" in known:
            raise BadRequestError("a chunked request body is not supported here")
        length = known.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(f"not a length: {length[:80]!r}")
        self._need = end + 4 + int(length)
        if len(self._buffer) < self._need:
            return None
        body = bytes(self._buffer[end + 4 : self._need])
        del self._buffer[: self._need]
        self._need = 0
        close = known.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        return Request(method, target, headers, body, keep_alive=not close)

    def _answer(self, request: Request) -> None:
        try:
            reply = self._site.answer(request)
        except Exception:
            # One broken page must not end the site; its traceback belongs on stderr.
            logger.exception("no answer for %s %s", request.method, request.target)
            reply = Reply(b"the demo site failed; see its stderr\n", 500, "text/plain")
        if reply.delay_s <= 0:
            self._send(request, reply)
            return
        loop = asyncio.get_running_loop()
        self._current = request, loop.call_later(reply.delay_s, self._send_late, request, reply)

    def _send_late(self, request: Request, reply: Reply) -> None:
        self._current = None
        self._send(request, reply)
        self._pump()

    def _send(self, request: Request, reply: Reply) -> None:
        self._transport.write(wire(request, reply))
        self._site.done(request)
        if not request.keep_alive:
            self._transport.close()
