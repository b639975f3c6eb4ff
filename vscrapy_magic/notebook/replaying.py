"""Owns `%vreplay`: failed calls with the source as it is now, and what that changes.

Runs in the kernel's main thread.
"""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.debugging import chosen, trusted_source
from vscrapy_magic.notebook.kernel import Kernel
from vscrapy_magic.notebook.patching import edited_order
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.patching import with_data
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.messages import Bundle

if TYPE_CHECKING:
    from vscrapy_magic.runtime.comparison import Compared

CALLS_MAX: Final = 1000  # run by one magic
_ROWS: Final = 50
_DIFFERENCES: Final = 10  # lines shown of one call


def replay(kernel: Kernel, crawl: Crawl, which: str = "all") -> "Replayed":
    """Run failed calls with the spider as it is now, beside the source that was shipped.

    Args:
        which: number of a failure, or `all`: of each place those that kept their response.

    Raises:
        ConfigError: there is no such failure, or this notebook has no such spider.
    """
    numbered = _chosen(crawl, which)
    versions = {record.code_version for record in numbered.values()}
    shipped = {version: trusted_source(crawl, version) for version in sorted(versions)}
    edited = edited_source(kernel, crawl, shipped[max(versions)])
    from vscrapy_magic.runtime.comparison import compare

    return Replayed(numbered, compare(numbered, shipped, edited, crawl.view.spec))


def _chosen(crawl: Crawl, which: str) -> dict[int, FailureRecord]:
    if which != "all":
        if not which.isdecimal():
            raise ConfigError(f"{which!r} is no number of a failure: %vreplay 3, or %vreplay all")
        number, record = chosen(crawl, int(which))
        return {number: record}
    chosen(crawl, 0)  # there is one
    found: dict[int, FailureRecord] = {}
    for number, failure in enumerate(crawl.failures, start=1):
        if len(found) < CALLS_MAX and (failure.record.response is not None or failure.item):
            found[number] = failure.record
    if not found:
        raise ConfigError(f"no failure of crawl {crawl.id} has kept what it failed on")
    return found


def edited_source(kernel: Kernel, crawl: Crawl, shipped: Bundle) -> Bundle:
    """The source as `%vcrawl` would ship it now; data files that went along go along again.

    Raises:
        ConfigError: no cell defines the spider.
        CannotShipError: something that it uses exists in this process only.
    """
    return with_data(edited_order(kernel, crawl).shipped.bundle, shipped)


class Replayed:
    """What came of it: a row for each call, and for one call what it brings now."""

    def __init__(self, records: dict[int, FailureRecord], compared: "dict[int, Compared]") -> None:
        self.records: Final = records
        self.compared: Final = compared

    @property
    def counts(self) -> dict[str, int]:
        """How many calls came out how."""
        found: dict[str, int] = {}
        for each in self.compared.values():
            found[str(each.verdict)] = found.get(str(each.verdict), 0) + 1
        return found

    def rows(self) -> list[dict[str, str]]:
        """As text, the first ones."""
        rows = []
        for number, each in list(self.compared.items())[:_ROWS]:
            record = self.records[number]
            rows.append(
                {
                    "#": str(number),
                    "was": f"{record.type} at {record.place or record.kind}",
                    "now": _outcome(each),
                    "url": record.url,
                }
            )
        return rows

    def __repr__(self) -> str:
        lines = [_sentence(self.counts)]
        for row in self.rows():
            lines.append(f"{row['#']:>4}  {row['now']}  (was {row['was']})  {row['url']}")
            if len(self.compared) == 1:
                lines += _differences(next(iter(self.compared.values())))
        if len(self.compared) > _ROWS:
            lines.append(f"  ... {len(self.compared) - _ROWS} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
        return f'<pre style="{style}">{html.escape(repr(self))}</pre>'


def _sentence(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _outcome(each: "Compared") -> str:
    now = each.edited
    if now.not_run:
        return f"not run: {now.not_run}"
    brings = f"{len(now.items)} items, {len(now.requests)} requests"
    if now.error:
        return f"{each.verdict}: {now.error} at {now.place}"
    unsure = "" if each.reproduced else "; but the shipped source does not fail here either"
    return f"{each.verdict}: now yields {brings}{unsure}"


def _differences(each: "Compared") -> list[str]:
    """What the source as it is now brings, against what was shipped."""
    return [*_marked("+", each.gained), *_marked("-", each.lost)]


def _marked(mark: str, outputs: Sequence[str]) -> list[str]:
    lines = [f"      {mark} {output}" for output in outputs[:_DIFFERENCES]]
    more = len(outputs) - len(lines)
    return [*lines, f"      {mark} ... {more} more"] if more else lines
