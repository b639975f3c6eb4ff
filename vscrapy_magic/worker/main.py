"""Owns the command line of workers: `vscrapy worker [URL] [-n N] [--slots S] [--name NAME]`.

Runs in the worker's process. What is needed only later is imported later: on two cores the zygote
imports Scrapy in the same time.
"""

import argparse
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Final

from vscrapy_magic import config
from vscrapy_magic.errors import ConfigError, VscrapyError
from vscrapy_magic.store.environment import environment_id
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import WorkerRecord
from vscrapy_magic.version import __version__

if TYPE_CHECKING:
    from vscrapy_magic.store.connection import Store
    from vscrapy_magic.worker.arrival import Arrival
    from vscrapy_magic.worker.source import Source

DEFAULT_SLOTS: Final = 8
USAGE_ERROR: Final = 2
AUTO: Final = "auto"
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_MEGABYTE: Final = 1024 * 1024

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The options of workers."""
    parse = argparse.ArgumentParser(
        prog="vscrapy worker",
        description="Serve crawls from one Redis until SIGTERM. Twice: at once.",
        epilog="example: vscrapy worker redis://:password@host:6379 -n auto",
    )
    parse.add_argument("url", nargs="?", help="address of Redis; else VSCRAPY_REDIS_URL or config")
    parse.add_argument(
        "-n", dest="count", default="1", metavar="N", help="workers; auto for one per core (1)"
    )
    parse.add_argument(
        "--slots", type=int, default=DEFAULT_SLOTS, help="crawls at once, of each worker (8)"
    )
    parse.add_argument("--name", default="", help="name of the worker (host and process id)")
    parse.add_argument(
        "--child-memory",
        type=int,
        default=0,
        metavar="MB",
        help="kill a child that has more memory than this (no limit)",
    )
    parse.add_argument(
        "--with-parent", action="store_true", help="end, at once, when standard input does"
    )
    # Said by local clusters only.
    parse.add_argument("--inspect-in", default="", help=argparse.SUPPRESS)
    parse.add_argument("--log-level", default="INFO", help="of the worker's own log (INFO)")
    return parse


def main(argv: Sequence[str]) -> int:
    """Run workers until they are told to go; the exit code."""
    options = parser().parse_args(argv)
    try:
        _configure_log(options.log_level)
        count = _count(options.count)
        for value, option in (
            (options.slots - 1, "--slots"),
            (options.child_memory, "--child-memory"),
        ):
            if value < 0:
                raise ConfigError(f"{option}: a positive number is needed")
        url = options.url or config.redis_url()
        if url is None:
            raise ConfigError(
                "which Redis? Give its address, as in `vscrapy worker redis://host:6379`, "
                f"or set {config.URL_VARIABLE}"
            )
        return _serve(options, url, count)
    except VscrapyError as exc:
        sys.stderr.write(f"vscrapy worker: {exc}\n")
        return USAGE_ERROR


def _configure_log(level: str) -> None:
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(f"--log-level {level}: DEBUG, INFO, WARNING or ERROR is needed")
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT, stream=sys.stderr)


def _count(text: str) -> int:
    if text == AUTO:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"-n {text}: a number of workers is needed, or auto")
    return int(text)


def _names(store: "Store", given: str, count: int) -> list[WorkerName]:
    """Names of the workers; without a given name, those that no live worker has."""
    from vscrapy_magic.store.presence import Liveness, Presence

    host = socket.gethostname()
    if count == 1:
        return [WorkerName(given or f"{host}-{os.getpid()}")]
    if given:
        return [WorkerName(f"{given}-{number}") for number in range(1, count + 1)]
    taken = {
        view.record.name for view in Presence(store).workers() if view.liveness is not Liveness.GONE
    }
    names: list[WorkerName] = []
    number = 1
    while len(names) < count:
        name = WorkerName(f"{host}-{number}")
        if name not in taken:
            names.append(name)
        number += 1
    return names


def _serve(options: argparse.Namespace, url: str, count: int) -> int:
    """Come up, become known, and serve.

    What children are forked from imports Scrapy meanwhile; that takes longest, so it begins first.
    """
    from vscrapy_magic.worker.zygote import new_source

    source = new_source(inspect_in=options.inspect_in)
    try:
        from vscrapy_magic.store.connection import Store
        from vscrapy_magic.worker.arrival import Arrival

        parent_fd = sys.stdin.fileno() if options.with_parent else None
        with Store.connect(url) as store, Arrival(source, parent_fd) as arrival:
            _on_signals(arrival.go)
            if arrival.wait():
                _take_part(store, source, arrival, options, count)
    finally:
        source.close()
    return 0


def _take_part(
    store: "Store", source: "Source", arrival: "Arrival", options: argparse.Namespace, count: int
) -> None:
    from vscrapy_magic.worker.supervisor import Options, Supervisor

    records = [_record(name, options.slots) for name in _names(store, options.name, count)]
    supervisor = Supervisor(
        store,
        records,
        source,
        Options(
            parent_fd=sys.stdin.fileno() if options.with_parent else None,
            child_memory_bytes=options.child_memory * _MEGABYTE,
        ),
    )
    _on_signals(supervisor.go)
    if arrival.is_told_to_go:  # just now
        supervisor.go()
    names = ", ".join(record.name for record in records)
    logger.info("Worker %s is ready and serves %s: %d slots", names, store.address, options.slots)
    supervisor.run()


def _on_signals(go: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: go())


def _record(name: WorkerName, slots: int) -> WorkerRecord:
    return WorkerRecord(
        name=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        python=platform.python_version(),
        scrapy=metadata.version("scrapy"),
        version=__version__,
        env=environment_id(),
        started_ms=int(time.time() * 1000),
    )
