"""Owns which calls of a crawl are run again, and with which source.

Runs in the sender's process (a kernel, a terminal), in its main thread. Calls are those that
failed, and in a crawl that was recorded (`--record`) those of all pages, named `p1`, `p2`, ...
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from vscrapy_magic.errors import ConfigError, StateError
from vscrapy_magic.runtime.comparison import compare
from vscrapy_magic.runtime.replayed import Replayed, count
from vscrapy_magic.store.failures import FailureKind, FailureRecord
from vscrapy_magic.store.messages import Bundle
from vscrapy_magic.store.pages import PageRecord
from vscrapy_magic.store.views import CrawlView

CALLS_MAX: Final = 1000  # that failed, run by one magic
PAGES_MAX: Final = 10_000  # recorded, the same: what they bring is in memory
_PAGE: Final = re.compile(r"p([1-9]\d*)")
_SOURCE_CHARS: Final = 4000  # shown before source of others is run


class Kept(Protocol):
    """A crawl as its user holds it, as far as it matters here."""

    @property
    def id(self) -> str: ...
    @property
    def spider(self) -> str: ...
    @property
    def view(self) -> CrawlView: ...
    @property
    def failures(self) -> Sequence[Any]: ...
    @property
    def pages(self) -> Sequence[Any]: ...

    def source(self, code_version: int = 1) -> tuple[Bundle, bool]:
        """What was shipped, and whether it was this user who shipped it, from this machine."""


def replay(crawl: Kept, edited: Callable[[Bundle], Bundle], which: str = "all") -> Replayed:
    """Run calls with the spider as it is now, beside the source that was shipped.

    Args:
        edited: the source as it is now, for what was shipped.
        which: number of a failure, or of a page (`p12`); `all`: all pages that were recorded, and
            failures that kept what they failed on.

    Raises:
        ConfigError: there is no such failure or page.
        StateError: this user did not want to run source of somebody else.
    """
    begun = time.monotonic()
    calls = _chosen(crawl, which)
    versions = {record.code_version for record in calls.values()}
    shipped = {version: trusted_source(crawl, version) for version in sorted(versions)}
    now = edited(shipped[max(versions)])
    with contextlib.ExitStack() as quiet:
        if len(calls) > 1:  # what a thousand pages print would hide what came of them
            nowhere = quiet.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            quiet.enter_context(contextlib.redirect_stdout(nowhere))
            quiet.enter_context(contextlib.redirect_stderr(nowhere))
        compared, unsteady = compare(calls, shipped, now, crawl.view.spec)
    return Replayed(compared, unsteady, left_out=calls.left_out, seconds=time.monotonic() - begun)


def chosen(crawl: Kept, number: int) -> tuple[int, FailureRecord]:
    """A failure by its number; 0: the newest.

    Raises:
        ConfigError: there is none of that number.
    """
    known = len(crawl.failures)
    if not known:
        hint = "; %vreplay p1 is its first page" if len(crawl.pages) else ""
        raise ConfigError(f"crawl {crawl.id} has no failures{hint}")
    number = number or known
    if not 1 <= number <= known:
        raise ConfigError(
            f"no failure {number}: crawl {crawl.id} has {known}; "
            f"see %verrors, or `vscrapy errors {crawl.id}`"
        )
    return number, crawl.failures[number - 1].record


def chosen_page(crawl: Kept, word: str) -> tuple[int, FailureRecord]:
    """A recorded page by its name, `p12`: its number, and its call.

    Raises:
        ConfigError: that is no such name, or there is none of that number.
    """
    found = _PAGE.fullmatch(word)
    if found is None:
        raise ConfigError(f"{word!r} is no number of a failure, and no page: write 3, or p3")
    number, pages = int(found[1]), crawl.pages
    if number > len(pages):
        hint = "" if crawl.view.spec.record_bytes else "; --record records all"
        raise ConfigError(
            f"no page {word}: crawl {crawl.id} has {count(len(pages), 'recorded page')}{hint}"
        )
    record: PageRecord = pages[number - 1].record
    return number, record.call


def trusted_source(crawl: Kept, version: int) -> Bundle:
    """The source that was shipped; of another user or machine only when this user has said yes.

    Raises:
        StateError: this user has said no, or cannot be asked.
    """
    bundle, is_own = crawl.source(version)
    if is_own:
        return bundle
    text = bundle.files.get(bundle.entry, b"").decode(errors="replace")
    _say(f"the source of crawl {crawl.id} was not shipped by you from this machine:\n")
    _say(text[:_SOURCE_CHARS] + ("\n..." if len(text) > _SOURCE_CHARS else ""))
    more = sorted(set(bundle.files) - {bundle.entry})
    if more:
        _say(f"\nand {', '.join(more)}")
    try:
        answer = input("run it here? [y/N] ")
    except (EOFError, RuntimeError):  # a notebook without a keyboard raises one of the latter
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise StateError(f"the source of crawl {crawl.id} was not run")
    return bundle


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the user waits for it


class Calls(Mapping[str, FailureRecord]):
    """Calls by label, each read from disk when it is asked for.

    Attributes:
        left_out: how many more there are.
    """

    def __init__(self) -> None:
        self._readers: dict[str, Callable[[], FailureRecord]] = {}
        self.left_out = 0

    def add(self, label: str, read: Callable[[], FailureRecord]) -> None:
        """One more, at the end."""
        self._readers[label] = read

    def __getitem__(self, label: str) -> FailureRecord:
        return self._readers[label]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _chosen(crawl: Kept, which: str) -> Calls:
    calls = Calls()
    if _PAGE.fullmatch(which):
        _, page = chosen_page(crawl, which)
        calls.add(which, lambda: page)
        return calls
    if which != "all":
        if not which.isdecimal():
            raise ConfigError(
                f"{which!r} is no number of a failure: %vreplay 3, or %vreplay all; pages of a "
                "recorded crawl are %vreplay p3"
            )
        number, record = chosen(crawl, int(which))
        calls.add(str(number), lambda: record)
        return calls
    if not len(crawl.pages):
        _check_any(crawl)
    _add_all(calls, crawl)
    if not calls:
        raise ConfigError(f"no failure of crawl {crawl.id} has kept what it failed on")
    return calls


def _check_any(crawl: Kept) -> None:
    """See that there is something to run.

    Raises:
        ConfigError: there is not; says how there will be.
    """
    if len(crawl.failures):
        return
    if crawl.view.spec.record_bytes:
        raise ConfigError(
            f"crawl {crawl.id} has no failures, and none of its recorded pages is kept here"
        )
    raise ConfigError(
        f"crawl {crawl.id} has no failures, and its pages were not recorded: run it with --record "
        f"(`%%vcrawl {crawl.spider} --record`) to keep all of them"
    )


def _add_all(calls: Calls, crawl: Kept) -> None:
    """Recorded pages, and failures that kept what they failed on and are not of such a page."""
    failed = {
        _call(failure.record): failure.record
        for failure in crawl.failures
        if failure.kind == FailureKind.CALLBACK
    }
    pages, paged = crawl.pages, set()

    def read(place: int) -> FailureRecord:
        record: FailureRecord = pages[place].record.call
        known = failed.get(_call(record))
        if known is None:
            return record
        return msgspec.structs.replace(record, type=known.type, place=known.place)

    for number, page in enumerate(islice(pages, PAGES_MAX), start=1):
        paged.add(_call(page.record))
        calls.add(f"p{number}", partial(read, number - 1))
    calls.left_out = max(0, len(pages) - PAGES_MAX)
    added = 0
    for number, failure in enumerate(crawl.failures, start=1):
        record = failure.record
        is_paged = record.kind == FailureKind.CALLBACK and _call(record) in paged
        is_kept = record.response is not None or record.item
        if added < CALLS_MAX and is_kept and not is_paged:
            added += 1
            calls.add(str(number), partial(_same, record))


def _same(record: FailureRecord) -> FailureRecord:
    return record


def _call(record: FailureRecord | PageRecord) -> tuple[str, str, str]:
    return record.method, record.url, record.callback
