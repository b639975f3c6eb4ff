"""Owns how the source that was shipped and the source as it is now are compared, call by call.

Runs in the sender's process. Each is a guest in turn, and runs all calls on what was captured of
them; what they bring is compared as text. Fields whose values the shipped source itself changes
from run to run (the time, a random number) are found by running a few pages twice, and left out.
"""

import enum
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from itemadapter import ItemAdapter, is_item
from scrapy import Request

from vscrapy_magic.runtime.frames import type_name
from vscrapy_magic.runtime.guest import Guest, guest
from vscrapy_magic.runtime.replay import NotReplayableError, Rerun, crawler_of, rerun
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.messages import Bundle, CrawlSpec

_TEXT_CHARS: Final = 500  # of one output; of a longer one a check sum tells the rest
_SUM_BYTES: Final = 4
_TWICE: Final = 3  # pages of each callback that are run twice
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")  # of an object, in its repr


class Verdict(enum.StrEnum):
    """What the edited source does where the shipped one failed, or where a page was recorded."""

    BROKEN = "newly broken"
    DIFFERENT = "different error"
    FIXED = "fixed"
    CHANGED = "now yields other things"
    NOT_RUN = "not run"
    SAME = "same error"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Ran:
    """What one call brought, as text.

    Attributes:
        error: `TypeError: ...`; empty when it ended well.
        not_run: why it could not be run; empty when it was.
    """

    items: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    error: str = ""
    place: str = ""
    not_run: str = ""

    @property
    def kind(self) -> str:
        """Class of the error."""
        return self.error.partition(":")[0]


@dataclass(frozen=True)
class Compared:
    """One call, run with both sources.

    Attributes:
        was: how it failed on its worker; empty for a recorded page.
        is_whole: whether all of the response was kept.
    """

    shipped: Ran
    edited: Ran
    was: str = ""
    url: str = ""
    is_whole: bool = True

    @property
    def verdict(self) -> Verdict:
        if self.edited.not_run:
            return Verdict.NOT_RUN
        if self.was or self.shipped.error:
            if not self.edited.error:
                return Verdict.FIXED
            return Verdict.SAME if self.edited.kind == self.shipped.kind else Verdict.DIFFERENT
        if self.edited.error:
            return Verdict.BROKEN
        return Verdict.CHANGED if self.gained or self.lost else Verdict.UNCHANGED

    @property
    def reproduced(self) -> bool:
        """Whether the shipped source fails here, too."""
        return bool(self.shipped.error)

    @property
    def gained(self) -> list[str]:
        """Outputs that only the edited source brings."""
        return sorted((_all(self.edited) - _all(self.shipped)).elements())

    @property
    def lost(self) -> list[str]:
        """Outputs that only the shipped source brings."""
        return sorted((_all(self.shipped) - _all(self.edited)).elements())


def compare(
    records: Mapping[str, FailureRecord],
    shipped: Mapping[int, Bundle],
    edited: Bundle,
    spec: CrawlSpec,
) -> tuple[dict[str, Compared], tuple[str, ...]]:
    """Run calls with the source that was shipped and with the source as it is now.

    Args:
        records: by label, and read more than once, each when its turn comes. One of a recorded
            page has no `type`.
        shipped: by code version.

    Returns:
        What came of each call, and names of fields of items that were left out.

    Raises:
        Exception: whatever the edited source raises when it is loaded.
    """
    before: dict[str, Ran] = {}
    without: set[str] = set()
    for version, bundle in shipped.items():
        with guest(bundle, spec) as loaded:
            without |= _unsteady(loaded, records, version)
            before |= _run_all(loaded, records, frozenset(without), version)
    with guest(edited, spec) as loaded:
        after = _run_all(loaded, records, frozenset(without))
    found = {}
    for label, record in records.items():
        was = f"{record.type} at {record.place or record.kind}" if record.type else ""
        is_whole = record.response is None or record.response.is_whole
        found[label] = Compared(before.get(label, Ran()), after[label], was, record.url, is_whole)
    return found, tuple(sorted(without))


def _run_all(
    loaded: Guest,
    records: Mapping[str, FailureRecord],
    without: frozenset[str],
    version: int | None = None,
) -> dict[str, Ran]:
    """Run calls; of one version of the code, or all."""
    found, crawler = {}, crawler_of(loaded)
    for label, record in records.items():
        if version in {None, record.code_version}:
            # Components may keep what they find in a crawler, so each has one of its own.
            shared = None if record.component else crawler
            try:
                found[label] = summary(rerun(loaded, record, shared), without)
            except NotReplayableError as exc:
                found[label] = Ran(not_run=str(exc))
    return found


def _unsteady(loaded: Guest, records: Mapping[str, FailureRecord], version: int) -> set[str]:
    """Fields of items that differ between two runs of the same call."""
    seen: Counter[str] = Counter()
    names: set[str] = set()
    for record in records.values():
        if record.type or record.code_version != version or seen[record.callback] >= _TWICE:
            continue
        seen[record.callback] += 1
        try:
            first, second = (_fields(rerun(loaded, record).outputs) for _ in range(2))
        except NotReplayableError:
            continue
        for one, other in zip(first, second, strict=False):
            names |= {name for name in one.keys() & other.keys() if one[name] != other[name]}
    return names


def _fields(outputs: Sequence[Any]) -> list[dict[str, str]]:
    """The fields of each item as text."""
    return [
        {str(name): _json(value) for name, value in ItemAdapter(each).items()}
        for each in outputs
        if is_item(each)
    ]


def summary(done: Rerun, without: frozenset[str] = frozenset()) -> Ran:
    """What came of a call, as text that can be compared and kept.

    Args:
        without: fields of items that are left out.
    """
    items, requests = [], []
    for output in done.outputs:
        if isinstance(output, Request):
            requests.append(_request_text(output))
        else:
            items.append(_item_text(output, without))
    error = "" if done.error is None else f"{type_name(done.error)}: {done.error}"
    return Ran(tuple(items), tuple(requests), error, done.place)


def _request_text(request: Request) -> str:
    callback = getattr(request.callback, "__name__", "") if request.callback else "parse"
    more = {
        name: value
        for name in ("body", "headers", "cookies", "meta", "cb_kwargs", "priority")
        if (value := getattr(request, name))
    }
    text = f"{request.method} {request.url} -> {callback}"
    return _cut(f"{text} {_json(more)}" if more else text)


def _item_text(item: Any, without: frozenset[str]) -> str:
    data = dict(ItemAdapter(item)) if is_item(item) else item
    if without and isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in without}
    return _cut(_json(data))


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):
        text = repr(value)
    return _ADDRESS.sub("", text) if " at 0x" in text else text


def _cut(text: str) -> str:
    if len(text) <= _TEXT_CHARS:
        return text
    check = blake2b(text.encode(errors="replace"), digest_size=_SUM_BYTES).hexdigest()
    return f"{text[:_TEXT_CHARS]} ... ({len(text)} characters, {check})"


def _all(ran: Ran) -> Counter[str]:
    return Counter([*ran.items, *ran.requests])
