"""The site of one run: what a site can do to a spider, on a port and with a memory of its own.

In threads of the process that compares; the standard library only. Every run gets a new one, so
sessions, flaky pages and counts of one run say nothing about another.
"""

import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from tests.parity.pages import PAGES, Asked, Reply

LATENCY_S: Final = 0.02  # of each answer: with several workers there is something for each
GATE_AT: Final = 8  # requests at once, as many as a domain may have: more are queued, likely
GATE_S: Final = 8.0  # how long they are waited for


class Site:
    """A running site; a context manager.

    Attributes:
        url: without a slash at its end.
        hits: how often each method and path was asked for.
        times: when each path was asked for (seconds, monotonic), in that order.
        most: the largest number of requests in progress at once.
        gate: while it is not set, several requests at once wait for it for a moment: so long that
            all workers are there, and the first one does not do all by itself.
    """

    def __init__(self, port: int = 0, latency_s: float = LATENCY_S) -> None:
        self.hits: Counter[str] = Counter()
        self.times: list[tuple[float, str]] = []
        self.most = 0
        self.memory: defaultdict[str, Any] = defaultdict(int)
        self.latency_s = latency_s
        self.gate = threading.Event()
        self._now = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"site": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def begin(self, method: str, target: str) -> None:
        with self._lock:
            self.hits[f"{method} {target}"] += 1
            self.times.append((time.monotonic(), target))
            self._now += 1
            self.most = max(self.most, self._now)

    def hold(self) -> None:
        """Wait at the gate, when there is a crowd."""
        if not self.gate.is_set() and self._now >= GATE_AT:
            self.gate.wait(GATE_S)
            self.gate.set()

    def done(self) -> None:
        with self._lock:
            self._now -= 1

    def ticks(self) -> list[float]:
        """When `/tick/` pages were asked for, from the first one on."""
        times = sorted(at for at, target in self.times if target.startswith("/tick/"))
        return [at - times[0] for at in times]

    def count(self, name: str) -> int:
        """How often this was called with a name, this time included."""
        with self._lock:
            self.memory[name] += 1
            return int(self.memory[name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # connections of killed clients may stay open
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away; pages that fail answer 500 themselves."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30  # of a connection that nothing comes from
    wbufsize = -1
    site: Site

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        asked = Asked(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            site=self.site,
        )
        self.site.begin(self.command, self.path)
        try:
            self.site.hold()
            reply = _reply(asked)
            time.sleep(reply.wait_s + self.site.latency_s)
        finally:
            self.site.done()
        if reply.reset:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _reply(asked: Asked) -> Reply:
    first = asked.path.split("/")[1]
    page = PAGES.get(first)
    return page(asked) if page is not None else Reply(b"no such page", 404, "text/plain")
