"""Owns the demo site's process: `python -m vscrapy_magic.demo`.

It prints its address as one line when it listens, and ends on SIGTERM, on SIGINT and, with
`--with-parent`, when its standard input closes.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading

from vscrapy_magic.demo.connection import Connection
from vscrapy_magic.demo.routes import DEFAULT_OPTIONS, Options, Routes

BACKLOG = 1024  # connections that may wait to be accepted


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vscrapy_magic.demo", description="A shop to crawl."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--pages", type=int, default=DEFAULT_OPTIONS.pages, help="how many book pages"
    )
    parser.add_argument("--seed", type=int, default=DEFAULT_OPTIONS.seed, help="other content")
    parser.add_argument(
        "--related", type=int, default=DEFAULT_OPTIONS.related, help="links between books, per page"
    )
    parser.add_argument(
        "--delay-ms", type=int, default=DEFAULT_OPTIONS.delay_ms, help="delay of every page"
    )
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    options = parser.parse_args(arguments)
    if min(options.pages, options.related, options.delay_ms, options.port) < 0:
        parser.error("numbers must not be negative")
    return options


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wait for the end of standard input; runs in a thread, because stdin may be anything."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


async def _serve(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    site = Routes(
        Options(
            pages=arguments.pages,
            seed=arguments.seed,
            related=arguments.related,
            delay_ms=arguments.delay_ms,
        )
    )
    server = await loop.create_server(
        lambda: Connection(site), arguments.host, arguments.port, backlog=BACKLOG
    )
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://{arguments.host}:{port}/\n")
    sys.stdout.flush()
    if arguments.with_parent:
        watcher = threading.Thread(
            target=_watch_parent, args=(loop, stop), name="demo-parent", daemon=True
        )
        watcher.start()
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    asyncio.run(_serve(_parsed(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
