"""Owns the command line `vscrapy`: translates and calls one function; all else goes to `scrapy`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic import __version__, config
from vscrapy_magic.errors import ConfigError, VscrapyError
from vscrapy_magic.sender.cluster import PrivateCluster
from vscrapy_magic.sender.order import Order, pairs
from vscrapy_magic.sender.run import Feeds, run
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls, CrawlView
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.presence import Presence, WorkerView
from vscrapy_magic.worker.main import main as worker_main

USAGE_ERROR: Final = 2
LOCAL_WORKERS: Final = 2  # of a private cluster when nothing else is said
_HELP: Final = f"""vscrapy {__version__}: Scrapy crawls on many workers

  vscrapy runspider FILE [scrapy options] [--workers N]   one spider file
  vscrapy worker [URL]                                    serve crawls until SIGTERM
  vscrapy workers [--json]                                who is there
  vscrapy -l [--json]                                     all crawls on this Redis
  vscrapy stop ID [--now]                                 stop a crawl
  anything else is handed to scrapy

Redis: --redis URL, VSCRAPY_REDIS_URL or the configuration file; runspider has a private one else.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else "--help"
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "runspider": _runspider,
        "worker": worker_main,
        "workers": _workers,
        "stop": _stop,
        "-l": _list,
        "--list": _list,
    }
    try:
        if command in {"-h", "--help"}:
            sys.stdout.write(_HELP)
            return 0
        if command in commands:
            return commands[command](words[1:])
        return _scrapy(words)
    except VscrapyError as exc:
        sys.stderr.write(f"vscrapy: {exc}\n")
        return USAGE_ERROR


def _scrapy(words: Sequence[str]) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "scrapy", *words])  # noqa: S606 - same program


def _runspider(words: Sequence[str]) -> int:
    parse = argparse.ArgumentParser(
        prog="vscrapy runspider",
        description="Run one spider file on several workers.",
        epilog="example: vscrapy runspider quotes.py -a tag=humor -O quotes.jsonl --workers 4",
    )
    parse.add_argument("file", type=Path)
    parse.add_argument("-a", dest="args", action="append", default=[], metavar="NAME=VALUE")
    parse.add_argument("-s", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parse.add_argument("-o", dest="append", action="append", default=[], metavar="FILE")
    parse.add_argument("-O", dest="overwrite", action="append", default=[], metavar="FILE")
    parse.add_argument("-L", "--loglevel", default="")
    parse.add_argument("--nolog", action="store_true")
    parse.add_argument("--workers", type=int, default=0, help="at most so many (all; private: 2)")
    parse.add_argument("--redis", default="", metavar="URL")
    options = parse.parse_args(words)
    if options.workers < 0:
        raise ConfigError(f"--workers {options.workers}: a number of workers is needed")
    settings = pairs(options.settings, "-s")
    if options.loglevel:
        settings["LOG_LEVEL"] = options.loglevel.upper()
    order = Order(
        path=options.file,
        args=pairs(options.args, "-a"),
        settings=settings,
        workers=options.workers,
    )
    feeds = Feeds(append=options.append, overwrite=options.overwrite)
    url = options.redis or config.redis_url()
    if url:
        with Store.connect(url) as store:
            return run(store, order, feeds, quiet=options.nolog)
    with (
        PrivateCluster(options.workers or LOCAL_WORKERS) as cluster,
        Store.connect(cluster.url) as store,
    ):
        return run(store, order, feeds, quiet=options.nolog)


def _connect(parse: argparse.ArgumentParser, options: argparse.Namespace) -> Store:
    url = options.redis or config.redis_url()
    if not url:
        raise ConfigError(f"which Redis? `{parse.prog} --redis URL`, or set {config.URL_VARIABLE}")
    return Store.connect(url)


def _asking(prog: str) -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog=prog)
    parse.add_argument("--redis", default="", metavar="URL")
    parse.add_argument("--json", action="store_true", help="for scripts")
    return parse


def _list(words: Sequence[str]) -> int:
    parse = _asking("vscrapy -l")
    options = parse.parse_args(words)
    with _connect(parse, options) as store:
        views = Crawls(store).list_all()
    rows = [_crawl_row(view) for view in views]
    _show(rows, as_json=options.json, nothing="no crawls")
    return 0


def _workers(words: Sequence[str]) -> int:
    parse = _asking("vscrapy workers")
    options = parse.parse_args(words)
    with _connect(parse, options) as store:
        views = Presence(store).workers()
    rows = [_worker_row(view) for view in views]
    _show(rows, as_json=options.json, nothing="no workers; start one with `vscrapy worker URL`")
    return 0


def _stop(words: Sequence[str]) -> int:
    parse = _asking("vscrapy stop")
    parse.add_argument("crawl", metavar="ID")
    parse.add_argument("--now", action="store_true", help="kill instead of finishing")
    options = parse.parse_args(words)
    with _connect(parse, options) as store:
        crawls = Crawls(store)
        state = (crawls.kill if options.now else crawls.stop)(CrawlId(options.crawl))
    sys.stdout.write(f"crawl {options.crawl}: {state}\n")
    return 0


def _crawl_row(view: CrawlView) -> dict[str, str | int]:
    return {
        "id": view.crawl_id,
        "spider": view.spec.spider,
        "state": str(view.state),
        "why": view.why or view.close_reason,
        "workers": len(view.members),
        "pages": view.totals.pages,
        "items": view.totals.items,
        "failures": view.totals.failures,
        "queued": view.totals.queued,
    }


def _worker_row(view: WorkerView) -> dict[str, str | int]:
    record = view.record
    return {
        "name": record.name,
        "host": record.host,
        "pid": record.pid,
        "state": "draining" if record.draining else str(view.liveness),
        "used": record.used,
        "slots": record.slots,
        "python": record.python,
        "scrapy": record.scrapy,
        "silent_s": view.silent_ms // 1000,
    }


def _show(rows: Sequence[dict[str, str | int]], *, as_json: bool, nothing: str) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    if not rows:
        sys.stdout.write(nothing + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
