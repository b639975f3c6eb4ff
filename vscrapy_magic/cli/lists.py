"""Owns `vscrapy -l` and `vscrapy workers`: tables for people, JSON for scripts."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from vscrapy_magic.cli.target import address, open_store, parser
from vscrapy_magic.sender.lines import clean_lines
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.presence import Liveness, Presence, SessionView, WorkerView
from vscrapy_magic.store.views import CrawlView

_MS: Final = 1000
_AGES: Final = ((86400, "d"), (3600, "h"), (60, "m"))  # seconds, letter
_WATCH_S: Final = 1.0  # between two looks
_CLEAR: Final = "\x1b[H\x1b[2J"
_COUNTS: Final = frozenset({"workers", "pages", "items", "errors", "slots", "pid", "age"})
_MB: Final = 1024**2


def crawls(words: Sequence[str]) -> int:
    """All crawls that are kept, newest first, and how many workers there are."""
    parse = parser("vscrapy -l", "All crawls, newest first.", "vscrapy -l --json")
    parse.add_argument("--json", action="store_true", help="for scripts")
    parse.add_argument("--watch", action="store_true", help="show it anew each second")
    options = parse.parse_all(words)
    with open_store(options) as store:
        if options.json:
            _write_json(_crawl_rows(store), _worker_rows(store))
            return 0
        while True:
            if options.watch:
                sys.stdout.write(_CLEAR)
            _show_crawls(store)
            if not options.watch:
                return 0
            sys.stdout.flush()
            time.sleep(_WATCH_S)


def workers(words: Sequence[str]) -> int:
    """All workers that were heard of within the last hour."""
    parse = parser("vscrapy workers", "Who is there to work.", "vscrapy workers --json")
    parse.add_argument("--json", action="store_true", help="for scripts")
    options = parse.parse_all(words)
    with open_store(options) as store:
        rows = _worker_rows(store)
    if options.json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
    elif rows:
        _table([_worker_line(row) for row in rows], may_shrink="host")
    else:
        sys.stdout.write("no workers; `vscrapy worker URL` starts one on any machine\n")
    return 0


def _write_json(crawl_rows: Sequence[Any], worker_rows: Sequence[Any]) -> None:
    facts = {"crawls": crawl_rows, "workers": worker_rows}
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")


def _show_crawls(store: Store | None) -> None:
    if store is None:
        sys.stdout.write("nothing runs: the local cluster starts with the first crawl\n")
        return
    rows, there = _crawl_rows(store), _worker_rows(store)
    live = [row for row in there if row["state"] == Liveness.LIVE]
    if rows:
        _table([_crawl_line(row) for row in rows], may_shrink="spider")
        for row in rows:
            if row["why"]:
                sys.stdout.write(f"{row['id']}: {' '.join(clean_lines(row['why']))}\n")
    else:
        sys.stdout.write("no crawls\n")
    used, slots = (sum(row[name] for row in live) for name in ("used", "slots"))
    count = "1 worker" if len(live) == 1 else f"{len(live)} workers"
    told = f"{count}, {used} of {slots} slots used" if live else "no workers"
    sys.stdout.write(f"{address(store)}: {told}\n")


def _crawl_rows(store: Store | None) -> list[dict[str, Any]]:
    if store is None:
        return []
    sessions = {view.record.session: view for view in Presence(store).sessions()}
    now_ms = int(time.time() * _MS)
    return [_crawl_row(view, sessions, now_ms) for view in Crawls(store).list_all()]


def _crawl_row(view: CrawlView, sessions: Mapping[Any, SessionView], now_ms: int) -> dict[str, Any]:
    totals = view.totals
    return {
        "id": view.crawl_id,
        "spider": view.spec.spider,
        "state": str(view.state),
        "why": _why(view, now_ms),
        "sender": _sender(view, sessions),
        "workers": len({member.worker for member in view.members}),
        "pages": totals.pages,
        "items": totals.items,
        "errors": totals.errors,
        "failures": totals.failures,
        "queued": totals.queued,
        "leased": totals.leased,
        "age_s": max(0, now_ms - view.created_ms) // _MS,
    }


def _why(view: CrawlView, now_ms: int) -> str:
    if view.over:
        reason = view.why or view.close_reason
        return "" if reason == view.state else reason
    return view.waits(now_ms) or view.limited_by


def _sender(view: CrawlView, sessions: Mapping[Any, SessionView]) -> str:
    if view.session is None:
        return "detached"
    if view.over:
        return ""
    session = sessions.get(view.session)
    return "gone" if session is None else str(session.liveness)


def _worker_rows(store: Store | None) -> list[dict[str, Any]]:
    if store is None:
        return []
    return [_worker_row(view) for view in Presence(store).workers()]


def _worker_row(view: WorkerView) -> dict[str, Any]:
    record = view.record
    is_leaving = record.draining and view.liveness is Liveness.LIVE
    return {
        "name": record.name,
        "host": record.host,
        "pid": record.pid,
        "state": "draining" if is_leaving else str(view.liveness),
        "used": record.used,
        "slots": record.slots,
        "python": record.python,
        "scrapy": record.scrapy,
        "version": record.version,
        "cpu_percent": record.cpu_percent,
        "memory_bytes": record.memory_bytes,
        "up_s": max(0, int(time.time()) - record.started_ms // _MS),
        "silent_s": view.silent_ms // _MS,
    }


def _crawl_line(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as it is shown: 80 characters wide for usual names."""
    return {
        "id": row["id"],
        "spider": row["spider"],
        "state": row["state"].replace(CrawlState.STORE_ROLLED_BACK, "rolled back"),
        "sender": row["sender"],
        "workers": str(row["workers"]),
        "pages": str(row["pages"]),
        "items": str(row["items"]),
        "errors": str(row["failures"]),
        "age": age(row["age_s"]),
    }


def _worker_line(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": row["name"],
        "host": row["host"],
        "pid": str(row["pid"]),
        "state": row["state"],
        "slots": f"{row['used']}/{row['slots']}",
        "python": row["python"],
        "scrapy": row["scrapy"],
        "cpu": f"{row['cpu_percent']:.0f}%",
        "memory": f"{row['memory_bytes'] // _MB} MB",
        "up": age(row["up_s"]),
        "beat": f"{row['silent_s']} s ago",
    }


def age(seconds: int) -> str:
    """A time span in its largest unit: `42s`, `7m`, `3h`, `2d`."""
    for size, letter in _AGES:
        if seconds >= size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"


def _table(rows: Sequence[Mapping[str, str]], *, may_shrink: str) -> None:
    """Rows under their names; only the column `may_shrink` is cut on a narrow terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in rows[0]:
        width = max(len(name), *(len(row[name]) for row in rows))
        table.add_column(
            name,
            justify="right" if name in _COUNTS else "left",
            no_wrap=True,
            min_width=None if name == may_shrink else width,
        )
    for row in rows:
        table.add_row(*(Text(" ".join(clean_lines(value))) for value in row.values()))
    Console(highlight=False).print(table)
