"""Owns which calls of a crawl are run again, from where, and how what came of it is told.

Runs in the sender's process (a kernel, a terminal), in its main thread. Calls are those that
failed, and in a crawl that was recorded (`--record`) those of all pages, named `p1`, `p2`, ...
"""

import contextlib
import html
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
from vscrapy_magic.runtime.comparison import Compared, Ran, Verdict, compare
from vscrapy_magic.store.failures import FailureKind, FailureRecord
from vscrapy_magic.store.messages import Bundle
from vscrapy_magic.store.pages import BODY_SETTING, PageRecord
from vscrapy_magic.store.views import CrawlView

CALLS_MAX: Final = 1000  # that failed, run by one magic
PAGES_MAX: Final = 10_000  # recorded, the same: what they bring is in memory
_ROWS: Final = 50
_DIFFERENCES: Final = 10  # lines shown of one call
_DIFFERENCES_OF_MANY: Final = 3  # lines shown of one of many
_NAMED: Final = 5  # calls that came out alike
_LINE_CHARS: Final = 200
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


def replay(crawl: Kept, edited: Callable[[Bundle], Bundle], which: str = "all") -> "Replayed":
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
    count = len(crawl.failures)
    if not count:
        hint = "; %vreplay p1 is its first page" if len(crawl.pages) else ""
        raise ConfigError(f"crawl {crawl.id} has no failures{hint}")
    number = number or count
    if not 1 <= number <= count:
        raise ConfigError(f"no failure {number}: crawl {crawl.id} has {count}; see %verrors")
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
            f"no page {word}: crawl {crawl.id} has {_count(len(pages), 'recorded page')}{hint}"
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


class Replayed:
    """What came of it: a row for calls that came out alike, and for one call what it brings now.

    Attributes:
        compared: by label: number of a failure, `p` and number of a page.
        unsteady: fields of items that differ from run to run.
        left_out: recorded pages that were not run.
    """

    def __init__(
        self,
        compared: Mapping[str, Compared],
        unsteady: Sequence[str] = (),
        *,
        left_out: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.compared: Final = compared
        self.unsteady: Final = tuple(unsteady)
        self.left_out: Final = left_out
        self.seconds: Final = seconds

    @property
    def counts(self) -> dict[str, int]:
        """How many calls came out how; what changed comes first."""
        found = dict.fromkeys(map(str, Verdict), 0)
        for each in self.compared.values():
            found[str(each.verdict)] += 1
        return {verdict: count for verdict, count in found.items() if count}

    def groups(self) -> list[dict[str, Compared]]:
        """Calls that came out alike, what changed first; pages that did not change are no group."""
        found: dict[tuple[object, ...], dict[str, Compared]] = {}
        for label, each in self.compared.items():
            if each.verdict is not Verdict.UNCHANGED or len(self.compared) == 1:
                found.setdefault(_likeness(each), {})[label] = each
        order = list(Verdict)
        ranked = sorted(found.items(), key=lambda pair: order.index(_first(pair[1]).verdict))
        return [group for _, group in ranked]

    def rows(self) -> list[dict[str, str]]:
        """As text, the first ones."""
        rows = []
        for group in self.groups()[:_ROWS]:
            first = _first(group)
            was = first.was or _brought(first.shipped)
            rows.append(
                {"#": _labels(list(group)), "was": was, "now": _outcome(first), "url": first.url}
            )
        return rows

    def __repr__(self) -> str:
        lines = [self._sentence()]
        groups = self.groups()
        most = _DIFFERENCES if len(self.compared) == 1 else _DIFFERENCES_OF_MANY
        for row, group in zip(self.rows(), groups, strict=False):
            lines.append(f"{row['#']:>4}  {row['now']}  (was {row['was']})  {row['url']}")
            first = _first(group)
            if len(self.compared) == 1 or (not first.was and not first.edited.error):
                lines += _differences(first, most)
        if len(groups) > _ROWS:
            lines.append(f"  ... {len(groups) - _ROWS} more")
        return "\n".join([*lines, *self._notes()])

    def _sentence(self) -> str:
        said = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items())
        pages = sum(label.startswith("p") for label in self.compared)
        if not pages:
            return said
        more = len(self.compared) - pages
        failures = f" and {_count(more, 'failure')}" if more else ""
        return f"{_count(pages, 'page')}{failures} in {self.seconds:.1f} s: {said}"

    def _notes(self) -> Iterator[str]:
        if self.left_out:
            yield f"  {self.left_out:,} more recorded pages were not run"
        if self.unsteady:
            names = ", ".join(self.unsteady)
            yield f"  not compared, because they differ from run to run: {names}"
        cut = sum(not each.is_whole for label, each in self.compared.items() if label[0] == "p")
        if cut:
            yield f"  {cut:,} pages were run on the beginning of their body ({BODY_SETTING})"
        if any(label.startswith("p") for label in self.compared) and len(self.compared) > 1:
            yield "  `%vreplay p3` shows what page 3 brings now, `%vdebug p3` debugs it"

    def _repr_html_(self) -> str:
        return f'<pre style="white-space:pre-wrap">{html.escape(repr(self))}</pre>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _first(group: Mapping[str, Compared]) -> Compared:
    return next(iter(group.values()))


def _likeness(each: Compared) -> tuple[object, ...]:
    """What calls have in common that came out alike."""
    now = each.edited
    how = (now.kind, now.place) if now.error else (_brought(now), _brought(each.shipped))
    return each.verdict, each.was, each.reproduced, how, now.not_run


def _labels(labels: Sequence[str]) -> str:
    more = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _brought(ran: Ran) -> str:
    if ran.error or ran.not_run:
        return f"{ran.kind} at {ran.place}" if ran.error else "not run"
    return f"{_count(len(ran.items), 'item')}, {_count(len(ran.requests), 'request')}"


def _outcome(each: Compared) -> str:
    now = each.edited
    if now.not_run:
        return f"not run: {now.not_run}"
    if now.error:
        return f"{each.verdict}: {now.error} at {now.place}"
    unsure = (
        ""
        if each.reproduced or not each.was
        else "; but the shipped source does not fail here either"
    )
    yields = "" if str(each.verdict).endswith("things") else "now yields "
    return f"{each.verdict}: {yields}{_brought(now)}{unsure}"


def _differences(each: Compared, most: int) -> list[str]:
    """What the source as it is now brings, against what was shipped."""
    return [*_marked("+", each.gained, most), *_marked("-", each.lost, most)]


def _marked(mark: str, outputs: Sequence[str], most: int) -> list[str]:
    width = _LINE_CHARS if most < _DIFFERENCES else None
    lines = [f"      {mark} {output[:width]}" for output in outputs[:most]]
    more = len(outputs) - len(lines)
    return [*lines, f"      {mark} ... {more} more"] if more else lines
