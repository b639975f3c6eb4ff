"""Owns the source closure of a class: which statements of which cells it needs, in what order.

Runs in the sender's process. A name used while a statement is executed means the latest binding
before it, one used inside a function the binding of now; what is plain data travels as the value
that it has now.
"""

import ast
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vscrapy_magic.sender.bundle_edits import Edit, class_edits, default_edits, edited, narrowed
from vscrapy_magic.sender.bundle_match import current, literal_in, literal_of, may_have_made
from vscrapy_magic.sender.bundle_names import binds, bound_by, called, changes, uses
from vscrapy_magic.sender.bundle_pieces import (
    ABSENT,
    LARGE_CHARS,
    VALUES,
    Piece,
    User,
    check_made,
    foreign_source,
    is_of_ipython,
)
from vscrapy_magic.sender.bundle_values import (
    CannotShipError,
    is_plain,
    is_writable,
    literal,
)
from vscrapy_magic.sender.cells import Statement

_BEFORE_ALL: Final = -1
_DEFINED: Final = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)


class Closure:
    """What one class needs; made for one shipping and read afterwards.

    Raises:
        CannotShipError: from `need` and `need_class`, the first thing found that cannot travel.
    """

    def __init__(self, statements: Sequence[Statement], namespace: Mapping[str, object]) -> None:
        self._statements = statements
        self._namespace = namespace
        self._binders: dict[str, list[Statement]] = {}
        self._changers: dict[str, list[tuple[Statement, str]]] = {}
        self._pieces: dict[tuple[int, str], Piece] = {}
        self._chosen: dict[str, Statement | None] = {}
        self._kinds: dict[str, object] = {}  # names that mean another object than in the namespace
        self._wanted: dict[int, set[str]] = {}  # names that are used of an import
        self._done: set[tuple[str, int]] = set()
        for statement in statements:
            for name in binds(statement.node):
                self._binders.setdefault(name, []).append(statement)
            for name, attribute in changes(statement.node):
                self._changers.setdefault(name, []).append((statement, attribute))

    @property
    def pieces(self) -> list[Piece]:
        """What was found to be needed, in the order of execution."""
        last = max((order[0] for order in self._pieces), default=_BEFORE_ALL)
        futures = {
            (s.index, ""): Piece((s.index, ""), s.label, s.line, s.text)
            for s in self._statements[: last + 1]
            if isinstance(s.node, ast.ImportFrom) and s.node.module == "__future__"
        }
        return [piece for _, piece in sorted({**self._pieces, **futures}.items())]

    def need_class(self, kind: type) -> str:
        """Take in a class; the name under which it is known where it runs."""
        name = self._name_of(kind)
        if name is None:
            candidates = [
                s
                for s in self._binders.get(kind.__name__, ())
                if isinstance(s.node, ast.ClassDef) and may_have_made(s, kind.__name__, kind)
            ]
            own = kind.__dict__.get("name")
            named = [s for s in candidates if literal_in(s.node, "name") == own]  # type: ignore[arg-type]
            candidates = named or candidates
            name = kind.__name__
            if not candidates and kind.__module__ != "__main__":
                text = f"from {kind.__module__} import {name}"
                self._add(Piece((_BEFORE_ALL, name), VALUES, 1, text))
                return name
            if not candidates:
                raise CannotShipError(
                    f"the source of {name} is in no cell that was run here; run the cell that "
                    "defines it, then ship it"
                )
            self._chosen[name] = candidates[-1]
            self._kinds[name] = kind
        self._need_now(name, None)
        return name

    def need_names(self, names: Sequence[str]) -> None:
        """Take in what these names stand for."""
        for name in names:
            self._need_now(name, None)

    def _name_of(self, kind: type) -> str | None:
        if self._namespace.get(kind.__name__) is kind:
            return kind.__name__
        names = [n for n, v in self._namespace.items() if v is kind and n in self._binders]
        return names[-1] if names else None

    def _value(self, name: str) -> object:
        return self._kinds.get(name, self._namespace.get(name, ABSENT))

    def _need_before(self, name: str, index: int, user: User) -> None:
        """A name that is used when the statement `index` is executed."""
        earlier = [s for s in self._binders.get(name, ()) if s.index < index]
        if not earlier or earlier[-1] is self._choose(name):
            self._need_now(name, user)
        elif self._once(name, earlier[-1].index):
            self._take_statement(earlier[-1], name)

    def _once(self, name: str, index: int) -> bool:
        is_new = (name, index) not in self._done
        self._done.add((name, index))
        return is_new

    def _choose(self, name: str) -> Statement | None:
        if name not in self._chosen:
            found = current(self._binders.get(name, ()), name, self._value(name))
            self._chosen[name] = found
        return self._chosen[name]

    def _need_now(self, name: str, user: User | None) -> None:
        """A name as it stands in the namespace."""
        value = self._value(name)
        statement = self._choose(name)
        index = _BEFORE_ALL if statement is None else statement.index
        if statement is None and name.startswith("__") and name.endswith("__"):
            return  # every module has its own
        is_known = value is not ABSENT or statement is not None
        if not is_known and not is_of_ipython(name):
            return  # a builtin, or a name that would be missing in the notebook too
        if not self._once(name, index):
            return
        if statement is None or value is ABSENT:
            if text := foreign_source(name, value, user):
                self._add(Piece((_BEFORE_ALL, name), VALUES, 1, text))
            return
        node = statement.node
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._take_import(statement, name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._take_definition(statement, value)
        elif is_plain(value):
            self._take_value(statement, name, value)
        else:
            self._take_made(statement, name, value, user)
        if not is_plain(value):
            self._take_changes(statement, name, value)

    def _take_made(self, statement: Statement, name: str, value: object, user: User | None) -> None:
        """An object that is no plain data: by the statement that made it, if that can travel."""
        before = dict(self._pieces), set(self._done)
        try:
            check_made(statement, name, value, user)
            self._take_statement(statement, name)
            self._take_contents(value, user)
        except CannotShipError:
            if not is_writable(value):
                raise
            self._pieces, self._done = before
            self._take_value(statement, name, value)

    def _take_import(self, statement: Statement, name: str) -> None:
        """An import; of `import a.b` and `import a.c` both, since both bind `a`."""
        wanted = [statement]
        if isinstance(statement.node, ast.Import):
            wanted = [s for s in self._binders[name] if isinstance(s.node, ast.Import)]
        for each in wanted:
            self._take_statement(each, name)

    def _take_statement(self, statement: Statement, name: str) -> None:
        node, text = statement.node, statement.text
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = self._wanted.setdefault(statement.index, set())
            names.add(name)
            if all(alias.name != "*" for alias in node.names):
                text = narrowed(node, lambda alias: bound_by(alias) in names) or text
        self._add(Piece((statement.index, ""), statement.label, statement.line, text))

    def _take_definition(self, statement: Statement, value: object) -> None:
        node = statement.node
        edits: list[Edit] = []
        if isinstance(node, ast.ClassDef) and isinstance(value, type):
            edits = list(class_edits(node, value, self))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            edits = list(default_edits(node, value, self))
        written = [(each, self._written(statement, value)) for each, value in edits]
        text = edited(statement.text, written) if edits else statement.text
        self._add(Piece((statement.index, ""), statement.label, statement.line, text))

    def _written(self, statement: Statement, value: object) -> str:
        """The expression for a value; of large data a name for it, so that the rest stays small."""
        text = literal(value)
        if len(text) <= LARGE_CHARS:
            return text
        name = f"_value_{statement.index}_{len(self._pieces)}"
        order = (statement.index - 1, f"~{name}")  # after what that statement is for
        place = (statement.label, statement.line)
        self._add(Piece(order, *place, f"{name} = {text}", is_value=True))
        return name

    def is_alias(self, name: str, value: Any) -> bool:
        """Whether a name of the module stands for the very object, and that travels as it is."""
        return self._namespace.get(name, ABSENT) is value and is_plain(value)

    def is_data(self, name: str) -> bool:
        """Whether a name of the module stands for no module, class or function."""
        value = self._value(name)
        return value is not ABSENT and not isinstance(value, _DEFINED)

    def _take_value(self, statement: Statement, name: str, value: object) -> None:
        node, text = statement.node, f"{name} = {literal(value)}"
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            said = literal_of(node.value)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_name = len(targets) == 1 and isinstance(targets[0], ast.Name)
            if is_name and type(said) is type(value) and said == value:
                text = statement.text
        order = (statement.index, name)
        self._add(Piece(order, statement.label, statement.line, text, is_value=True))

    def _take_contents(self, value: object, user: User | None) -> None:
        """Functions and classes that a container holds: decorators may have put them there."""
        inside: list[Any] = []
        if isinstance(value, dict):
            inside = [*value, *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            inside = [*value]
        for each in inside:
            name = each.__name__ if isinstance(each, type | types.FunctionType) else ""
            if name and self._namespace.get(name) is each:
                self._need_now(name, user)

    def _take_changes(self, statement: Statement, name: str, value: object) -> None:
        """What later statements did to the object: `rules.append(...)`, `Quotes.parse = f`."""
        later_ones = self._changers.get(name, [])
        if type(value).__module__ == "__main__" and not isinstance(value, type):
            later_ones = sorted(
                [*later_ones, *((s, "()") for s in self._statements if name in called(s.node))],
                key=lambda found: found[0].index,
            )
        for later, attribute in later_ones:
            if later.index <= statement.index or not self._once(f"{name}.{attribute}", later.index):
                continue
            if isinstance(value, type) and attribute:
                self._take_attribute(later, name, attribute, value)
            else:
                self._take_statement(later, name)

    def _take_attribute(self, later: Statement, name: str, attribute: str, kind: type) -> None:
        value = kind.__dict__.get(attribute, ABSENT)
        if value is ABSENT or not is_plain(value):
            self._take_statement(later, name)
            return
        own = self._choose(name)
        body = own.node.body if own is not None and isinstance(own.node, ast.ClassDef) else []
        if not any(attribute in binds(child) for child in body):
            text = f"{name}.{attribute} = {literal(value)}"
            order = (later.index, f"{name}.{attribute}")
            self._add(Piece(order, later.label, later.line, text))

    def _add(self, piece: Piece) -> None:
        self._pieces[piece.order] = piece
        if piece.is_large:
            return
        used = uses(piece.text)
        for name, user in _users(used.now, piece):
            self._need_before(name, piece.order[0], user)
        for name, user in _users(used.later, piece):
            self._need_now(name, user)
        for name, user in _users(used.maybe - used.now - used.later, piece):
            self._try(name, piece.order[0], user)

    def _try(self, name: str, index: int, user: User) -> None:
        """As `_need_before`, of a name without which the source may well work."""
        before = dict(self._pieces), set(self._done)
        try:
            self._need_before(name, index, user)
        except CannotShipError:
            self._pieces, self._done = before


def _users(names: set[str], piece: Piece) -> Iterator[tuple[str, User]]:
    return ((name, User(piece, name)) for name in sorted(names))
