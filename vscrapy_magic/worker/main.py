"""Owns the command line of a worker: `vscrapy worker [URL] [--slots S] [--name NAME]`."""

import argparse
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Final

from vscrapy_magic import __version__, config
from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import WorkerRecord
from vscrapy_magic.worker.supervisor import Supervisor

DEFAULT_SLOTS: Final = 8
USAGE_ERROR: Final = 2
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def parser() -> argparse.ArgumentParser:
    """The options of a worker."""
    parse = argparse.ArgumentParser(
        prog="vscrapy worker",
        description="Serve crawls from one Redis until SIGTERM. Twice: at once.",
        epilog="example: vscrapy worker redis://:password@host:6379 --slots 4",
    )
    parse.add_argument("url", nargs="?", help="address of Redis; else VSCRAPY_REDIS_URL or config")
    parse.add_argument("--slots", type=int, default=DEFAULT_SLOTS, help="crawls at once (8)")
    parse.add_argument("--name", default="", help="name of the worker (host and process id)")
    parse.add_argument(
        "--with-parent", action="store_true", help="end, at once, when standard input does"
    )
    parse.add_argument("--log-level", default="INFO", help="of the worker's own log (INFO)")
    return parse


def main(argv: Sequence[str]) -> int:
    """Run a worker until it is told to go; the exit code."""
    options = parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    try:
        url = options.url or config.redis_url()
        if url is None:
            sys.stderr.write(
                "vscrapy worker: which Redis? Give its address, as in "
                "`vscrapy worker redis://host:6379`, or set VSCRAPY_REDIS_URL\n"
            )
            return USAGE_ERROR
        with Store.connect(url) as store:
            return _serve(store, options)
    except VscrapyError as exc:
        sys.stderr.write(f"vscrapy worker: {exc}\n")
        return USAGE_ERROR


def _serve(store: Store, options: argparse.Namespace) -> int:
    host = socket.gethostname()
    record = WorkerRecord(
        name=WorkerName(options.name or f"{host}-{os.getpid()}"),
        host=host,
        pid=os.getpid(),
        slots=options.slots,
        python=platform.python_version(),
        scrapy=metadata.version("scrapy"),
        version=__version__,
        env=sys.prefix,
        started_ms=int(time.time() * 1000),
    )
    parent_fd = sys.stdin.fileno() if options.with_parent else None
    supervisor = Supervisor(store, record, parent_fd=parent_fd)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.go())
    logging.getLogger(__name__).info(
        "Worker %s serves %s: %d slots", record.name, store.address, record.slots
    )
    supervisor.run()
    return 0
