"""Writes docs/parity.md: what was compared, and how it ended on 1, 2 and 4 workers."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.parity.compare import problems
from tests.parity.features import WORKERS, Feature
from tests.parity.running import Result

PAGE: Final = Path(__file__).parents[2] / "docs" / "parity.md"
_HEAD: Final = """# The same as `scrapy crawl`

Written by `python -m tests.parity`; do not edit. Each line is a spider of `tests/parity/spiders/`,
run by `scrapy crawl` and by `vscrapy crawl` on 1, 2 and 4 workers against a site of its own.

- equal: the same items (as a multiset), finish reason, stats and requests at the site, and where
  it has them the same feeds and files.
- one worker: it keeps state on `self`, in a global or in a filter of its own. That is found before
  it starts, its user reads a WARNING with the line, and it is equal.
- a number: so many workers downloaded something. Small crawls are done before others are needed,
  and a site that is asked slowly is asked by one.
- same reason: how far such a crawl gets differs from run to run, with any Scrapy.

What differs on purpose: [differences.md](differences.md).
"""


def write(features: Iterable[Feature], results: Mapping[str, Result]) -> None:
    lines = [_HEAD]
    for theme, group in groupby(features, key=lambda feature: feature.theme):
        lines += [f"\n## {theme.replace('_', ' ').capitalize()}\n"]
        lines += ["| feature | spider | " + " | ".join(f"{n} workers" for n in WORKERS) + " |"]
        lines += ["|---|---|" + "---|" * len(WORKERS)]
        lines += [_row(feature, results.get(feature.name)) for feature in group]
    PAGE.write_text("\n".join(lines).replace("| 1 workers", "| 1 worker") + "\n")


def _row(feature: Feature, result: Result | None) -> str:
    cells = [_cell(feature, result, str(count)) for count in WORKERS]
    return f"| {feature.says.rstrip('.')} | `{feature.name}` | {' | '.join(cells)} |"


def _cell(feature: Feature, result: Result | None, count: str) -> str:
    if result is None:
        return f"needs {', '.join(feature.facts.needs)}"
    ran = result.ours[count]
    if problems(feature, result.plain, ran):
        return "**not equal**"
    if ran.pinned and count != "1":
        return "one worker"
    shared = f" ({ran.took_part})" if ran.took_part > 1 else ""
    return ("same reason" if feature.facts.loose else "equal") + shared
