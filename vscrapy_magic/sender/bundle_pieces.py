"""Owns the pieces of source that travel, and how a refusal of one is said.

Runs in the sender's process.
"""

import ast
import builtins
import sys
import types
from dataclasses import dataclass
from typing import Final

from vscrapy_magic.sender.bundle_names import line_of
from vscrapy_magic.sender.bundle_values import CannotShipError, is_plain, literal, name_of, why_not
from vscrapy_magic.sender.cells import Statement, parse

VALUES: Final = "notebook"  # label of values that no cell assigns
ABSENT: Final = object()  # what a name stands for that the namespace has not
LARGE_CHARS: Final = 100_000  # of a literal; 100,000 URLs took 2 s to be looked at one by one
_KINDS: Final = {"[": "[0]", "{": "{0}"}
_NOTEBOOK_ONLY: Final = frozenset({"get_ipython", "In", "Out", "exit", "quit"})
_RUNS_ONCE: Final = (ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Match)
_HARMLESS: Final = (
    *(ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Pass),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.Try),
)
_ADVICE: Final = "define what the spider needs of it in a cell of its own"


@dataclass(frozen=True, slots=True)
class Piece:
    """Source that travels, and where it stands in which cell.

    Attributes:
        order: its place among all pieces: index of its statement, and the name that it is for.
        is_value: whether it gives a name nothing but plain data.
    """

    order: tuple[int, str]
    label: str
    line: int
    text: str
    is_value: bool = False

    @property
    def is_large(self) -> bool:
        """Whether it is data of which a look at every part would take long."""
        return self.is_value and len(self.text) > LARGE_CHARS

    @property
    def tree(self) -> ast.Module:
        """What it says; of large data only what kind it is."""
        text = self.text
        if self.is_large:
            name, _, value = text.partition(" = ")
            text = f"{name} = {_KINDS.get(value[0], None)}"
        return parse(text) or ast.Module(body=[], type_ignores=[])


@dataclass(frozen=True, slots=True)
class User:
    """Which source uses a name: for messages."""

    piece: Piece
    name: str

    def place(self) -> str:
        """`Quotes.parse uses it: Cell In[3] line 12`."""
        line, owner = line_of(self.piece.tree, self.name)
        where = f"{self.piece.label} line {self.piece.line + line - 1}"
        return f"{owner or 'that cell'} uses it: {where}" if owner else f"it is used at {where}"


def foreign_source(name: str, value: object, user: User | None) -> str:
    """Source that gives a name what it stands for, of one that no cell binds; "" for nothing.

    Raises:
        CannotShipError: there is none.
    """
    if name in _NOTEBOOK_ONLY:
        raise refusal(name, "part of the notebook", "use it outside of the spider", user)
    if value is ABSENT and is_of_ipython(name):
        value = getattr(builtins, name)
    if value is ABSENT or _is_builtin(name, value):
        return ""
    text = _imported(name, value)
    if text is not None:
        return text
    if is_plain(value):
        return f"{name} = {literal(value)}"
    what, advice = why_not(value) or (
        f"{_what(value)} whose source is in no cell",
        "define it in a cell, or in a module beside the notebook",
    )
    raise refusal(name, what, advice, user)


def check_made(statement: Statement, name: str, value: object, user: User | None) -> None:
    """Whether running its statement again gives an object like the one that there is.

    Raises:
        CannotShipError: it does not, or the object cannot be in another process.
    """
    reason = why_not(value)
    if reason is not None:
        raise refusal(name, *reason, user)
    node = statement.node
    parts = list(ast.walk(node))
    if isinstance(node, _RUNS_ONCE) or any(isinstance(p, ast.Await) for p in parts):
        what = f"{_what(value)} that a statement at {statement.place(1)} makes"
        raise refusal(name, what, f"{_ADVICE}, as one assignment", user)
    if isinstance(node, ast.If | ast.Try):
        inner = [child for child in parts if isinstance(child, ast.stmt)]
        if any(not isinstance(child, _HARMLESS) for child in inner):
            what = f"{_what(value)} that is made under conditions at {statement.place(1)}"
            raise refusal(name, what, f"{_ADVICE}, as one assignment", user)


def is_of_ipython(name: str) -> bool:
    """Whether IPython added a name to Python's own."""
    module = getattr(getattr(builtins, name, None), "__module__", None) or ""
    return name in _NOTEBOOK_ONLY - {"exit", "quit"} or module.startswith("IPython")


def _is_builtin(name: str, value: object) -> bool:
    """Whether a name means what it means in Python; IPython has an `open` around `open`."""
    own = getattr(builtins, name, ABSENT)
    if own is ABSENT or is_of_ipython(name):
        return False
    return value is own or getattr(value, "__wrapped__", None) is own


def _imported(name: str, value: object) -> str | None:
    """An import that gives the object its name; None when it is to be had by none."""
    if isinstance(value, types.ModuleType):
        return None if value.__name__ == "__main__" else f"import {value.__name__} as {name}"
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not path or module == "__main__" or not str(path).isidentifier():
        return None
    found = getattr(sys.modules.get(module), path, None)
    return f"from {module} import {path} as {name}" if found is value else None


def _what(value: object) -> str:
    if isinstance(value, type):
        return "a class"
    return "a function" if callable(value) else f"an object of {name_of(type(value))}"


def refusal(name: str, what: str, advice: str, user: User | None) -> CannotShipError:
    """The error that names a variable and the line that uses it."""
    where = f"; {user.place()}" if user else ""
    return CannotShipError(
        f"{name} cannot travel to a worker: it is {what}{where}. Workers get source and plain "
        f"data: {advice}."
    )
