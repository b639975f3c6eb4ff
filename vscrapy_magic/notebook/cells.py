"""Owns the source of the cells that this kernel has run, and how the body of a cell magic is run.

Runs in the kernel's main thread. `inspect` cannot find a class that a cell defined (before Python
3.13), `In` holds a cell magic as the call that it became, and the body of one would be numbered
from 1: so the source is kept as it was typed, and compiled at its true lines.
"""

import ast
import inspect
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from vscrapy_magic.sender.cells import Cell
from vscrapy_magic.store.coroutines import run_in_thread

RUN_HERE: Final = frozenset({"%%time", "%%timeit", "%%capture", "%%prun"})  # bodies run as cells do
CELLS_MAX: Final = 2000  # kept of one kernel; older ones go


class CellLog:
    """What was run in this kernel, in order."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._cells: list[Cell] = []
        self._ran_before()
        shell.events.register("pre_run_cell", self._before_cell)

    def close(self) -> None:
        """Take note of no more cells."""
        self._shell.events.unregister("pre_run_cell", self._before_cell)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(self._cells)

    def _ran_before(self) -> None:
        """Cells that ran before the extension was loaded, as the shell's history has them."""
        history = self._shell.user_ns.get("_ih") or []
        for number, source in enumerate(history):
            if number and source:
                self.add(Cell(label=_label(number), source=source))

    def _before_cell(self, info: Any) -> None:
        raw, first_line = info.raw_cell or "", 1
        if raw.lstrip().startswith("%%"):
            magic, body, first_line = _split(raw)
            if magic not in RUN_HERE:
                return  # no Python; and a magic of ours says itself what it ran
            raw = body
        try:
            source = self._shell.transform_cell(raw)
        except SyntaxError:
            return
        # The shell's own count is raised before this event or after the cell, by its version; the
        # history gets its entry between the two.
        if info.store_history:
            number = self._history_size()
        elif self._cells and self._cells[-1].source == source:
            return  # `%%capture` runs its body as a cell of its own
        else:
            number = self._history_size() - 1
        self.add(Cell(label=_label(number), source=source, first_line=first_line))

    def _history_size(self) -> int:
        """Entries of the history; the first cell's number is 1."""
        history = self._shell.history_manager
        return len(history.input_hist_parsed) if history is not None else 1

    def add(self, cell: Cell) -> None:
        """Take note of a cell that runs now."""
        self._cells.append(cell)
        del self._cells[:-CELLS_MAX]

    def run_body(self, body: str) -> Cell:
        """Run the body of a cell magic in the user's namespace, at its true lines.

        Raises:
            Exception: whatever the body raises.
        """
        shell = self._shell
        first_line = self._first_line_of_body()
        source = shell.transform_cell(body)
        number = self._history_size() - 1
        cell = Cell(label=_label(number), source=source, first_line=first_line)
        padded = "\n" * (first_line - 1) + source
        name = shell.compile.cache(padded, number)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | shell.compile.flags
        code = compile(padded, name, "exec", flags=flags, dont_inherit=True)
        self.add(cell)
        if code.co_flags & inspect.CO_COROUTINE:
            # The kernel's own loop is busy running this cell.
            run_in_thread(eval(code, shell.user_ns), "vscrapy-cell")  # noqa: S307 - the user's own cell
        else:
            exec(code, shell.user_ns)  # noqa: S102 - the user's own cell
        return cell

    def _first_line_of_body(self) -> int:
        """The body begins on the line after the magic; blank lines may come before that."""
        history = self._shell.history_manager
        raw = history.input_hist_raw[-1] if history and history.input_hist_raw else ""
        return _split(raw)[2]


def _split(raw: str) -> tuple[str, str, int]:
    """Name and body of a cell magic, and the line on which the body begins."""
    lines = raw.splitlines()
    at = next((number for number, line in enumerate(lines) if line.strip()), 0)
    words = lines[at].split() if lines else []
    return words[0] if words else "", "\n".join(lines[at + 1 :]), at + 2


def _label(number: int) -> str:
    """How tracebacks name a cell."""
    return f"Cell In[{number}]"
