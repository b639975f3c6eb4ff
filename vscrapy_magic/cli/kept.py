"""Owns what a crawl has brought: `vscrapy logs`, `items` and `errors`."""

import argparse
import contextlib
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from vscrapy_magic.cli.target import add_feeds, need, open_crawl, parser
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.collecting import kept_hint
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.kept import open_kept
from vscrapy_magic.sender.options import OptionParser, level_number, whole
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.terminal import LineFormat
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.failures import FailureGroup
from vscrapy_magic.store.keys import CrawlId
from vscrapy_magic.store.logs import LogLine, Logs

FETCH_S: Final = 10.0  # for what a running crawl has brought so far
LOOK_S: Final = 0.25  # between two looks at a crawl that is followed
_NUMBERS_SHOWN: Final = 5  # of the failures of one group


def logs(words: Sequence[str]) -> int:
    """Log lines that are kept, and with -f those that come."""
    parse = _parser("logs", "The log of a crawl.", "vscrapy logs 1a2b -L WARNING -n 50 -f")
    parse.add_argument("-w", "--worker", default="", help="only its lines")
    parse.add_argument("-L", "--loglevel", default="", metavar="LEVEL", help="it and those above")
    parse.add_argument("-g", "--grep", default="", metavar="REGEX", help="lines that hold it")
    parse.add_argument("-n", "--last", type=whole, default=0, metavar="N", help="the last N")
    parse.add_argument("-f", "--follow", action="store_true", help="until the crawl is over")
    options = parse.parse_all(words)
    lowest, pattern = level_number(options.loglevel), _pattern(options.grep)
    form = LineFormat()

    def is_meant(line: LogLine) -> bool:
        return (
            line.level >= lowest
            and (not options.worker or line.worker == options.worker)
            and pattern.search(line.text) is not None
        )

    with open_crawl(options) as (crawl_id, store):
        last = options.last
        for lines in _batches(crawl_id, store, follow=options.follow):
            found = [line for line in lines if is_meant(line)]
            sys.stdout.write("".join(map(form.text, found[-last:] if last else found)))
            sys.stdout.flush()
            last = 0
    return 0


def _batches(
    crawl_id: CrawlId, store: Store | None, *, follow: bool
) -> Iterator[Sequence[LogLine]]:
    """First all lines that there are, then, when followed, those that come."""
    kept = open_kept(crawl_id)
    if kept is not None:
        yield kept.logs()
        return
    reader, crawls = Logs(need(store)), Crawls(need(store))
    after, found = "0-0", []
    while True:
        is_over = crawls.view(crawl_id).over  # before the lines: none comes after the end is seen
        lines, after = reader.read(crawl_id, after)
        found += lines
        if lines:
            continue
        yield found
        if is_over or not follow:
            return
        found = []
        time.sleep(LOOK_S)


def items(words: Sequence[str]) -> int:
    """Items as JSON lines, or written as a feed."""
    parse = _parser("items", "The items of a crawl, as JSON lines.", "vscrapy items 1a2b > a.jsonl")
    parse.add_argument("-n", "--last", type=whole, default=0, metavar="N", help="the last N")
    add_feeds(parse)
    options = parse.parse_all(words)
    with _crawl(options) as crawl:
        for files, overwrite in ((options.output, False), (options.overwrite, True)):
            for line in crawl.export(*files, overwrite=overwrite) if files else ():
                sys.stderr.write(f"vscrapy: {line}\n")
        if options.output or options.overwrite:
            _tell_missing(crawl)
            return 0
        encode = msgspec.json.Encoder(enc_hook=str).encode
        start = max(0, len(crawl.items) - options.last) if options.last else 0
        for place in range(start, len(crawl.items)):
            sys.stdout.buffer.write(encode(crawl.items[place]) + b"\n")
        sys.stdout.buffer.flush()
        _tell_missing(crawl)
    return 0


def _tell_missing(crawl: Crawl) -> None:
    total = crawl.view.totals.items
    missing = total - len(crawl.items)
    if missing > 0 and (crawl.is_over or not len(crawl.items)):
        sys.stderr.write(
            f"vscrapy: {missing} of the {total} items of crawl {crawl.id} are with the sender that "
            f"collected them, on another machine or of another user{kept_hint(crawl.elsewhere)}\n"
        )


def errors(words: Sequence[str]) -> int:
    """Failures by what they are and where, the most frequent first."""
    parse = _parser("errors", "The failures of a crawl, grouped.", "vscrapy errors 1a2b")
    parse.add_argument("--json", action="store_true", help="for scripts: all of them, as lines")
    options = parse.parse_all(words)
    with _crawl(options) as crawl:
        if options.json:
            for failure in crawl.failures:
                facts = {"kind": failure.kind, "type": failure.type, "message": failure.message}
                facts |= {"place": failure.place, "url": failure.url, "worker": failure.worker}
                facts |= {"traceback": failure.traceback}
                sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
            return 0
        for group in crawl.failures.groups():
            sys.stdout.write(_group_text(group))
        if not len(crawl.failures):
            sys.stdout.write(f"crawl {crawl.id}: no failures\n")
    return 0


def _group_text(group: FailureGroup) -> str:
    first = group.first
    times = "once" if group.count == 1 else f"{group.count} times"
    numbers = ", ".join(map(str, group.numbers[:_NUMBERS_SHOWN]))
    more = ", ..." if len(group.numbers) > _NUMBERS_SHOWN else ""
    where = f" at {first.place}" if first.place else ""
    times += f" ({group.left_out} of them only counted)" if group.left_out else ""
    on = f" on {', '.join(group.workers)}" if group.workers else ""
    head = f"{first.type}: {first.message}{where}\n  {times}{on} (number {numbers}{more})\n"
    asked = f"  {first.method or 'GET'} {first.url}\n" if first.url else ""
    lines = "".join(f"  {line}\n" for line in first.traceback.rstrip().splitlines())
    return f"{head}{asked}{lines}\n"


def _parser(name: str, description: str, example: str) -> OptionParser:
    parse = parser(f"vscrapy {name}", description, example)
    parse.add_argument("crawl", metavar="ID", help="or the beginning of one")
    return parse


def _pattern(text: str) -> "re.Pattern[str]":
    try:
        return re.compile(text)
    except re.error as exc:
        raise ConfigError(f"-g {text}: no regular expression: {exc}") from exc


@contextlib.contextmanager
def _crawl(options: argparse.Namespace) -> Iterator[Crawl]:
    """The crawl that is meant, with what it has brought so far."""
    with open_crawl(options) as (crawl_id, store):
        kept = open_kept(crawl_id)
        if kept is not None:
            yield kept
            return
        with Session.connect(need(store).url, kind="terminal") as session:
            crawl = session.attach(crawl_id)
            for level, text in crawl.notes:
                if level >= logging.WARNING:
                    sys.stderr.write(f"vscrapy: {text}\n")
            _fetch(crawl)
            yield crawl


def _fetch(crawl: Crawl) -> None:
    """Wait until what the crawl has brought is here; of one that is over, until all is kept."""
    until = time.monotonic() + FETCH_S
    wanted = crawl.view.totals
    while time.monotonic() < until and not crawl.is_over and not crawl.collected_by:
        failures = len(crawl.failures) + crawl.failures.left_out
        is_here = len(crawl.items) >= wanted.items and failures >= wanted.failures
        if is_here and not crawl.view.over:
            return
        crawl.wait(LOOK_S)
