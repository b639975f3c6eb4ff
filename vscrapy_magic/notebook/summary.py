"""Owns what stays in the notebook of a crawl: a static summary, as HTML and as text.

Runs in the kernel. It is saved with the notebook and opened anywhere, so it has no script, and
every text in it is escaped: spider names, log lines and messages of exceptions are foreign.
"""

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from vscrapy_magic.notebook.progress import count, notices, progress
from vscrapy_magic.notebook.rings import ERROR_MARKS, Kept, Row
from vscrapy_magic.sender.lines import clean_lines
from vscrapy_magic.store.failures import FailureGroup
from vscrapy_magic.store.views import CrawlView

ROWS_PER_WORKER: Final = 200
ROWS_IN_ALL: Final = 2000  # of all workers, so that many of them do not swell the notebook
ROWS_MIN: Final = 10  # of each worker, however many there are
ROW_CHARS: Final = 500  # of one row
GROUPS_SHOWN: Final = 10  # kinds of failures
MESSAGE_CHARS: Final = 300  # of one exception
_TEXT_GROUPS: Final = 3

_PRE: Final = (
    "margin:4px 0 8px;padding:6px 8px;max-height:24em;overflow:auto;line-height:1.35;"
    "font-size:12px;border:1px solid rgba(128,128,128,.35);border-radius:3px"
)
_CELL: Final = "text-align:left;vertical-align:top;padding:2px 10px 2px 0"
_RED: Final = "color:var(--jp-error-color1,#c62828)"
_AMBER: Final = "color:var(--jp-warn-color0,#b26a00)"
_FAINT: Final = "opacity:.7"
_COLOURS: Final = {"E": _RED, "C": _RED, "W": _AMBER, "D": _FAINT}


def summary_html(
    view: CrawlView,
    workers: Mapping[str, Kept],
    groups: Sequence[FailureGroup] = (),
    notes: Sequence[str] = (),
) -> str:
    """The crawl as it ended, or as it is now.

    Args:
        workers: in the order in which they are shown; of each the last rows, errors before others.
        notes: what was said above the lines.
    """
    said = dict.fromkeys([*notes, *notices(view)])
    head = f"<strong>{_text(view.spec.spider)}</strong> <code>{_text(view.crawl_id)}</code>"
    parts = [
        f"<div>{head} {_text(_progress(view))}</div>",
        *(f'<div style="{_AMBER}">{_text(note)}</div>' for note in said),
        _failures_html(groups),
        *_workers_html(workers),
    ]
    return f'<div style="max-width:100%">{"".join(parts)}</div>'


def summary_text(view: CrawlView, groups: Sequence[FailureGroup] = ()) -> str:
    """The same in a few lines of plain text, without log lines."""
    head = f"crawl {view.crawl_id} {_flat(view.spec.spider)} {_progress(view)}"
    said = [f"  {_flat(note)}" for note in notices(view)]
    lines = [f"  {_group_text(group)}" for group in groups[:_TEXT_GROUPS]]
    if len(groups) > _TEXT_GROUPS:
        lines.append(f"  {len(groups) - _TEXT_GROUPS} more kinds of failures: %verrors")
    return "\n".join([head, *said, *lines])


def short_html(view: CrawlView) -> str:
    """What is shown instead of a live panel where there is no kernel behind the notebook."""
    return (
        f"<div><strong>{_text(view.spec.spider)}</strong> <code>{_text(view.crawl_id)}</code> "
        f"was {_text(_progress(view))} when this notebook was saved; "
        f"<code>%vlogs {_text(view.crawl_id)}</code> shows its lines</div>"
    )


def short_text(view: CrawlView) -> str:
    """The crawl in one line."""
    return f"crawl {view.crawl_id} {_flat(view.spec.spider)} {_progress(view)}"


def _progress(view: CrawlView) -> str:
    return progress(view, 0.0, int(time.time() * 1000))


def _failures_html(groups: Sequence[FailureGroup]) -> str:
    if not groups:
        return ""
    rows = "".join(_group_html(group) for group in groups[:GROUPS_SHOWN])
    head = "".join(
        f'<th style="{_CELL}">{name}</th>' for name in ("count", "failure", "where", "first")
    )
    more = ""
    if len(groups) > GROUPS_SHOWN:
        more = f"<div>{len(groups) - GROUPS_SHOWN} more kinds of failures: %verrors</div>"
    return (
        f'<table style="margin:6px 0"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"{more}"
    )


def _group_html(group: FailureGroup) -> str:
    first = group.first
    error = f'<strong style="{_RED}">{_text(first.type)}</strong>'
    message = _cut(_flat(first.message), MESSAGE_CHARS)
    cells = (
        f"{group.count:,}",
        f"{error}: {_text(message)}" if message else error,
        _text(first.place or first.callback or first.url),
        f"<code>%verrors {group.numbers[0]}</code> <code>%vdebug {group.numbers[0]}</code>",
    )
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _group_text(group: FailureGroup) -> str:
    first = group.first
    message = _cut(_flat(first.message), MESSAGE_CHARS)
    where = f" at {_flat(first.place)}" if first.place else ""
    number = group.numbers[0]
    type_here = f"(%verrors {number}, %vdebug {number})"
    return f"{group.count:,} x {first.type}: {message}{where} {type_here}"


def _workers_html(workers: Mapping[str, Kept]) -> list[str]:
    share = max(ROWS_MIN, ROWS_IN_ALL // max(1, len(workers)))
    most = min(ROWS_PER_WORKER, share)
    return [_worker_html(name, kept, pick(kept.rows, most)) for name, kept in workers.items()]


def pick(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, in order: up to half of them the last errors, then the newest."""
    if len(rows) <= most:
        return list(rows)
    errors = [row for row in rows if row.text[0] in ERROR_MARKS][-(most // 2) :]
    chosen = {row.number: row for row in errors}
    for row in reversed(rows):
        if len(chosen) >= most:
            break
        chosen[row.number] = row
    return [chosen[number] for number in sorted(chosen)]


def _worker_html(name: str, kept: Kept, rows: Sequence[Row]) -> str:
    lines, after = [], 1
    for row in rows:
        if row.number > after:
            gap = f"... {count(row.number - after, 'line')} not shown"
            lines.append(f'<span style="{_FAINT}">{gap}</span>')
        lines.append(_row_html(row))
        after = row.number + 1
    said = [count(kept.lines, "line")]
    if kept.errors:
        said.append(count(kept.errors, "error"))
    if kept.dropped:
        said.append(f"{kept.dropped:,} dropped")
    return (
        f'<details><summary style="cursor:pointer">{_text(name)} '
        f'<span style="{_FAINT}">{", ".join(said)}</span></summary>'
        f'<pre style="{_PRE}">{chr(10).join(lines)}</pre></details>'
    )


def _row_html(row: Row) -> str:
    text = _text(_cut(row.text[1:], ROW_CHARS))
    colour = _COLOURS.get(row.text[0].upper())
    return f'<span style="{colour}">{text}</span>' if colour else text


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]} ..."


def _flat(text: str) -> str:
    return " ".join(" ".join(clean_lines(text)).split())


def _text(text: str) -> str:
    """Foreign text as HTML; brackets of formulas are broken up, or MathJax would set them."""
    return escape(text).replace("$", "&#36;<!-- -->").replace("\\", "&#92;<!-- -->")
