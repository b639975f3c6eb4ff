"""Owns how one function gets at state that outlives it: attributes of `self`, names of its module.

Runs in the sender's process; looks at trees only.
"""

import ast
import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vscrapy_magic.sender.bundle_names import Function

# Methods of containers that change them.
CHANGES: Final = frozenset(
    {
        *("append", "appendleft", "extend", "extendleft", "insert", "add", "update", "remove"),
        *("discard", "pop", "popleft", "popitem", "clear", "setdefault", "sort", "reverse"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "subtract"),
        *("put", "put_nowait"),
    }
)
_CONTAINERS: Final = frozenset(
    {"set", "dict", "list", "deque", "defaultdict", "Counter", "OrderedDict", "bytearray"}
)
_COUNTERS: Final = frozenset({"count", "iter"})  # `next()` of these is never the same twice
_SAYS: Final = re.compile(r"((\w+\.)*_?(logger|log|logging|stats)\b.*|print|warnings\.warn)")
Key = tuple[str, str]  # owner ("" for a module) and name


class Does(enum.StrEnum):
    """What an access does."""

    ASSIGN = "assign"
    COUNT = "count"  # `x += 1`: reads nothing that anything else depends on
    CHANGE = "change"
    CLEAR = "clear"  # empties a container
    READ = "read"
    SAY = "say"  # reads for a log line or a stat only


@dataclass(frozen=True, slots=True)
class Access:
    """One access.

    Attributes:
        line: within the source of its function.
        is_sure: of an assignment: nothing skips it when the function runs.
        by: of a change: the method that was called, or "".
        tests: of a read: whether it asks if something is in it.
    """

    key: Key
    does: Does
    line: int
    is_sure: bool = False
    by: str = ""
    tests: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean in a function.

    Attributes:
        owners: variable -> owner of the attributes that are reached through it.
        globals: names of the module that are state.
    """

    owners: Mapping[str, str]
    globals: frozenset[str]


def accesses(node: Function, scope: Scope) -> Iterator[Access]:
    """All accesses of a function, functions inside it included."""
    parents = {child: parent for parent in ast.walk(node) for child in ast.iter_child_nodes(parent)}
    declared = {n for part in ast.walk(node) if isinstance(part, ast.Global) for n in part.names}
    local = _locals(node) - declared
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            owner = _owner(part.value, scope, local)
            if owner is not None:
                yield from _classified(part, (owner, part.attr), parents, node)
        elif isinstance(part, ast.Name) and part.id in (scope.globals | declared) - local:
            yield from _classified(part, ("", part.id), parents, node)
        elif isinstance(part, ast.Call):
            yield from _set_by_name(part, scope, local)


def _locals(node: Function) -> set[str]:
    names = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
    return names


def _owner(node: ast.expr, scope: Scope, local: set[str]) -> str | None:
    """Whose attribute is meant, of `self`, `type(self)`, `self.__class__`, `crawler.spider`."""
    if isinstance(node, ast.Name):
        is_variable = node.id in scope.owners
        return scope.owners[node.id] if is_variable else None
    if isinstance(node, ast.Attribute) and node.attr == "__class__":
        return _owner(node.value, scope, local)
    if isinstance(node, ast.Attribute) and node.attr == "spider":
        return scope.owners.get("spider") if ast.unparse(node).endswith("crawler.spider") else None
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "type" and len(node.args) == 1:
        return _owner(node.args[0], scope, local)
    return None


def _set_by_name(node: ast.Call, scope: Scope, local: set[str]) -> Iterator[Access]:
    if ast.unparse(node.func) == "setattr" and len(node.args) == 3:
        owner = _owner(node.args[0], scope, local)
        name = node.args[1]
        if owner is not None and isinstance(name, ast.Constant):
            yield Access((owner, str(name.value)), Does.ASSIGN, node.lineno)


def _classified(
    node: ast.Attribute | ast.Name,
    key: Key,
    parents: Mapping[ast.AST, ast.AST],
    function: Function,
) -> Iterator[Access]:
    parent = parents[node]
    line = node.lineno
    if isinstance(node.ctx, ast.Del):
        yield Access(key, Does.CHANGE, line)
    elif isinstance(node.ctx, ast.Store):
        if isinstance(parent, ast.AugAssign):
            yield Access(key, Does.COUNT, line)
            return
        holder = parents.get(parent) if isinstance(parent, ast.Tuple) else parent
        is_sure = holder is not None and parents.get(holder) is function
        empties = isinstance(parent, ast.Assign) and _is_empty(parent.value)
        yield Access(key, Does.CLEAR if empties else Does.ASSIGN, line, is_sure=is_sure)
    else:
        yield from _loaded(node, key, parents)


def _is_empty(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Set | ast.Tuple):
        return not node.elts
    if isinstance(node, ast.Dict):
        return not node.keys
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _CONTAINERS
        and not node.args
    )


def _loaded(node: ast.expr, key: Key, parents: Mapping[ast.AST, ast.AST]) -> Iterator[Access]:
    line, top, parent = node.lineno, node, parents[node]
    while isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is top:
        if not isinstance(parent.ctx, ast.Load):
            yield Access(key, Does.CHANGE, line)
            return
        call = parents[parent]
        if isinstance(parent, ast.Attribute) and isinstance(call, ast.Call) and call.func is parent:
            if parent.attr in CHANGES:
                does = Does.CLEAR if parent.attr == "clear" else Does.CHANGE
                yield Access(key, does, line, by=parent.attr)
                if not isinstance(parents[call], ast.Expr):
                    yield Access(key, Does.READ, line)
                return
            break
        top, parent = parent, call
    if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "next":
        yield Access(key, Does.CHANGE, line, by="next")
    tests = isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.In | ast.NotIn)
    does = Does.SAY if _only_said(node, parents) else Does.READ
    yield Access(key, does, line, tests=tests)


def _only_said(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether a read ends up in a log line or a stat, or decides about nothing but one."""
    child: ast.AST = node
    parent = parents.get(child)
    while parent is not None and not isinstance(parent, ast.stmt):
        if isinstance(parent, ast.Call) and _says(parent):
            return True
        child, parent = parent, parents.get(parent)
    if isinstance(parent, ast.If) and child is parent.test and not parent.orelse:
        return all(
            isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and _says(s.value)
            for s in parent.body
        )
    return False


def _says(node: ast.Call) -> bool:
    return _SAYS.fullmatch(ast.unparse(node.func)) is not None


def holds(node: ast.expr | None) -> str:
    """What an expression makes, as far as it is plain to see: `container`, `counter`, or ""."""
    if isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return "container"
    if isinstance(node, ast.BoolOp):
        return next((kind for kind in map(holds, node.values) if kind), "")
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name in _CONTAINERS:
            return "container"
        if name in _COUNTERS:
            return "counter"
    return ""
