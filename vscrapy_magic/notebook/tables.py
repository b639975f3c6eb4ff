"""Owns how rows are shown in a notebook (an HTML table) and in a terminal (aligned text).

Runs in the kernel. Every text is escaped: cells may hold what a remote site sent.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Final

_HEAD_STYLE: Final = "text-align:left;white-space:nowrap"
_STYLE: Final = "text-align:left;white-space:pre-wrap;max-width:60em;overflow-wrap:anywhere"
_WIDTH_MAX: Final = 80  # of a column of plain text


class Table:
    """Rows of one shape, shown as a table.

    Args:
        rows: column name -> value, the same columns in each.
        nothing: what is said when there are none.
        note: a line under the table.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, object]], *, nothing: str = "nothing", note: str = ""
    ) -> None:
        self.rows = [{name: str(value) for name, value in row.items()} for row in rows]
        self._nothing = nothing
        self._note = note

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return self._nothing
        names = list(self.rows[0])
        cells = [names, *([row.get(name, "") for name in names] for row in self.rows)]
        flat = [[" ".join(cell.split())[:_WIDTH_MAX] for cell in row] for row in cells]
        widths = [max(len(row[i]) for row in flat) for i in range(len(names))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in flat
        ]
        return "\n".join([*lines, *([self._note] if self._note else [])])

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{html.escape(self._nothing)}</p>"
        head = "".join(
            f'<th style="{_HEAD_STYLE}">{html.escape(name)}</th>' for name in self.rows[0]
        )
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{_STYLE}">{html.escape(value)}</td>' for value in row.values())
            + "</tr>"
            for row in self.rows
        )
        note = f"<p>{html.escape(self._note)}</p>" if self._note else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return table + note
