"""Owns how calls that were run again are told: how many came out how, and what changed.

Runs in the sender's process. What remote sites sent is shown as text, never as markup.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from vscrapy_magic.runtime.comparison import Compared, Ran, Verdict
from vscrapy_magic.store.pages import BODY_SETTING

_ROWS: Final = 50
_DIFFERENCES: Final = 10  # lines shown of one call
_DIFFERENCES_OF_MANY: Final = 3  # lines shown of one of many
_NAMED: Final = 5  # calls that came out alike
_LINE_CHARS: Final = 200
_IN_A_NOTEBOOK: Final = "%vreplay"


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

    @property
    def has_broken(self) -> bool:
        """Whether a page fails that did not fail before."""
        return any(each.verdict is Verdict.BROKEN for each in self.compared.values())

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
        return self.text(_IN_A_NOTEBOOK)

    def text(self, command: str) -> str:
        """All of it; `command` is what its user types before the number of a page."""
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
        return "\n".join([*lines, *self._notes(command)])

    def _sentence(self) -> str:
        said = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items())
        pages = sum(label.startswith("p") for label in self.compared)
        if not pages:
            return said
        more = len(self.compared) - pages
        failures = f" and {count(more, 'failure')}" if more else ""
        return f"{count(pages, 'page')}{failures} in {self.seconds:.1f} s: {said}"

    def _notes(self, command: str) -> Iterator[str]:
        if self.left_out:
            yield f"  {self.left_out:,} more recorded pages were not run"
        if self.unsteady:
            names = ", ".join(self.unsteady)
            yield f"  not compared, because they differ from run to run: {names}"
        cut = sum(not each.is_whole for label, each in self.compared.items() if label[0] == "p")
        if cut:
            yield f"  {cut:,} pages were run on the beginning of their body ({BODY_SETTING})"
        if any(label.startswith("p") for label in self.compared) and len(self.compared) > 1:
            debugs = ", `%vdebug p3` debugs it" if command == _IN_A_NOTEBOOK else ""
            yield f"  `{command} p3` shows what page 3 brings now{debugs}"

    def _repr_html_(self) -> str:
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
        return f'<pre style="{style}">{html.escape(repr(self))}</pre>'


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
    return f"{count(len(ran.items), 'item')}, {count(len(ran.requests), 'request')}"


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


def count(number: int, noun: str) -> str:
    """`1 page`, `1,200 pages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
