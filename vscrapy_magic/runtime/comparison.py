"""Owns how the source that was shipped and the source as it is now are compared, call by call.

Runs in the sender's process. Each is a guest in turn, and runs all calls that failed on what was
captured of them; what they bring is compared as text.
"""

import enum
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from itemadapter import ItemAdapter, is_item
from scrapy import Request

from vscrapy_magic.runtime.frames import type_name
from vscrapy_magic.runtime.guest import guest
from vscrapy_magic.runtime.replay import NotReplayableError, Rerun, rerun
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.messages import Bundle, CrawlSpec

_TEXT_CHARS: Final = 500  # of one output


class Verdict(enum.StrEnum):
    """What the edited source does where the shipped one failed."""

    FIXED = "fixed"
    SAME = "same error"
    DIFFERENT = "different error"
    NOT_RUN = "not run"


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
    """One failed call, run with both sources."""

    shipped: Ran
    edited: Ran

    @property
    def verdict(self) -> Verdict:
        if self.edited.not_run:
            return Verdict.NOT_RUN
        if not self.edited.error:
            return Verdict.FIXED
        return Verdict.SAME if self.edited.kind == self.shipped.kind else Verdict.DIFFERENT

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
    records: Mapping[int, FailureRecord],
    shipped: Mapping[int, Bundle],
    edited: Bundle,
    spec: CrawlSpec,
) -> dict[int, Compared]:
    """Run failed calls with the source that was shipped and with the source as it is now.

    Args:
        records: by number.
        shipped: by code version.

    Raises:
        Exception: whatever the edited source raises when it is loaded.
    """
    before: dict[int, Ran] = {}
    for version, bundle in shipped.items():
        before |= _run_all(
            {n: r for n, r in records.items() if r.code_version == version}, bundle, spec
        )
    after = _run_all(records, edited, spec)
    return {number: Compared(before.get(number, Ran()), after[number]) for number in records}


def _run_all(
    records: Mapping[int, FailureRecord], bundle: Bundle, spec: CrawlSpec
) -> dict[int, Ran]:
    found = {}
    with guest(bundle, spec) as loaded:
        for number, record in records.items():
            try:
                found[number] = summary(rerun(loaded, record))
            except NotReplayableError as exc:
                found[number] = Ran(not_run=str(exc))
    return found


def summary(done: Rerun) -> Ran:
    """What came of a call, as text that can be compared and kept."""
    items, requests = [], []
    for output in done.outputs:
        if isinstance(output, Request):
            requests.append(_request_text(output))
        else:
            items.append(_item_text(output))
    error = "" if done.error is None else f"{type_name(done.error)}: {done.error}"
    return Ran(tuple(items), tuple(requests), error, done.place)


def _request_text(request: Request) -> str:
    callback = getattr(request.callback, "__name__", "") if request.callback else "parse"
    return f"{request.method} {request.url} -> {callback}"[:_TEXT_CHARS]


def _item_text(item: Any) -> str:
    data = dict(ItemAdapter(item)) if is_item(item) else item
    try:
        text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):
        text = repr(data)
    return text[:_TEXT_CHARS]


def _all(ran: Ran) -> Counter[str]:
    return Counter([*ran.items, *ran.requests])
