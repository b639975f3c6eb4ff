"""Owns what was run in a notebook: cells, and the statements in them in the order of execution.

Runs in the sender's process; knows nothing of IPython, so that whatever runs code can hand it in:
cell by cell, or as a source that is asked when a class is to be shipped (`set_source`).
"""

import __future__

import ast
import functools
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from vscrapy_magic.sender.trees import tree_of

FUTURE_FLAGS: Final = functools.reduce(
    operator.or_,
    (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names),
)
PARSED_MAX: Final = 2000  # cells whose trees are kept: as many as a kernel's notes hold
_NEWLINE: Final = re.compile(r"\r\n|\r|\n")  # str.splitlines knows more than the tokenizer does


class Cell(msgspec.Struct, frozen=True):
    """One executed cell.

    Attributes:
        label: as tracebacks name it: `Cell In[3]`.
        source: the Python that was executed, without magics.
        first_line: line within the cell at which `source` begins; 2 for the body of a `%%` cell.
    """

    label: str
    source: str
    first_line: int = 1


Ran = tuple[Sequence[Cell], Mapping[str, object]]

_sources: list[Callable[[], Ran]] = []  # the newest counts


def set_source(provider: Callable[[], Ran]) -> None:
    """Let this provider say which cells ran in this process, and what their namespace holds."""
    _sources[:] = [provider]


def ran_here() -> Ran | None:
    """All cells that ran so far, and their namespace; None where nobody runs cells."""
    return _sources[0]() if _sources else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement at the top level of a cell.

    Attributes:
        index: its place in the order of execution.
        label: of its cell.
        line: where `text` begins within the cell.
        node: parsed from `text`, so that its line 1 is `line`.
        flags: of the compiler: `from __future__` imports stay in force for later cells.
        imports: of the whole cell; calls on a module that the same cell imports are compiled in
            another way (Python 3.11 and newer), so its code can only be compared with them.
    """

    index: int
    label: str
    line: int
    text: str
    node: ast.stmt
    flags: int = 0
    imports: tuple[ast.stmt, ...] = ()

    def place(self, line: int) -> str:
        """How a line of `text` is named to users."""
        return f"{self.label} line {self.line + line - 1}"


def parse(source: str, flags: int = 0) -> ast.Module | None:
    """The source as a tree, top-level `await` or not; None when it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user saw them when the cell was run
            return tree_of(source, "<cell>", flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError):
        return None


def read_statements(cells: Sequence[Cell]) -> list[Statement]:
    """All statements in the order of execution; a cell that is no Python never ran and has none.

    Cells that were read before are not parsed again: a notebook has many when one of them crawls.
    """
    found: list[Statement] = []
    flags = 0
    for cell in cells:
        parsed = _parsed(cell.source, flags)
        flags = parsed.flags
        for first, text, node in parsed.statements:
            found.append(
                Statement(
                    index=len(found),
                    label=cell.label,
                    line=cell.first_line + first - 1,
                    text=text,
                    node=node,
                    flags=flags,
                    imports=parsed.imports,
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What the source of one cell says, wherever it stands; nobody changes its trees.

    Attributes:
        flags: of the compiler, from this cell on.
        statements: first line, text and tree of each.
    """

    flags: int
    statements: tuple[tuple[int, str, ast.stmt], ...] = ()
    imports: tuple[ast.stmt, ...] = ()


@functools.lru_cache(PARSED_MAX)
def _parsed(source: str, flags: int) -> _Parsed:
    """The source, with the flags of the cells before it."""
    tree = parse(source)
    if tree is None:
        return _Parsed(flags)
    lines = _NEWLINE.split(source)
    flags |= _future_flags(tree)
    statements = []
    for node in tree.body:
        first, text = _cut(lines, node)
        own = parse(text, flags)
        if own is not None and own.body:
            statements.append((first, text, own.body[0]))
    return _Parsed(flags, tuple(statements), tuple(_imports(tree)))


def _cut(lines: Sequence[str], node: ast.stmt) -> tuple[int, str]:
    """First line and text of a statement, decorators included; other ones of its lines are not."""
    first, column = node.lineno, node.col_offset
    for decorator in getattr(node, "decorator_list", ()):
        first, column = min(first, decorator.lineno), 0
    last = node.end_lineno or node.lineno
    cut = list(lines[first - 1 : last])
    # Columns of trees count bytes.
    cut[-1] = cut[-1].encode()[: node.end_col_offset].decode()
    cut[0] = cut[0].encode()[column:].decode()
    return first, "\n".join(cut)


def _imports(tree: ast.Module) -> Iterator[ast.stmt]:
    """Imports at the top level of a cell, also those under conditions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _future_flags(tree: ast.Module) -> int:
    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                flags |= getattr(__future__, alias.name).compiler_flag
    return flags
