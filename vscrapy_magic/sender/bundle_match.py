"""Owns which statement made the object that a name stands for now.

Runs in the sender's process. A cell may have run twice, failed half-way, or been edited since:
definitions are told apart by their code, compiled again, not by lines, which front ends count
differently.
"""

import ast
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vscrapy_magic.sender.bundle_names import Function, bound_by
from vscrapy_magic.sender.cells import Statement

_FIRST_LINE: Final = "__firstlineno__"  # Python 3.13 keeps line numbers among constants
_ABSENT: Final = object()


def current(candidates: Sequence[Statement], name: str, value: Any) -> Statement | None:
    """The latest statement that can have made `value`; the latest of all when none looks like it.

    None for a class or function of the notebook of which every statement is known to have made
    another one.
    """
    for statement in reversed(candidates):
        if may_have_made(statement, name, value):
            return statement
    if not candidates or isinstance(value, type | types.FunctionType):
        return None
    return candidates[-1]


def may_have_made(statement: Statement, name: str, value: Any) -> bool:
    """False when the statement surely made another object than `value`."""
    node = statement.node
    if isinstance(node, ast.ClassDef):
        return (
            not isinstance(value, type)
            or bool(node.decorator_list)
            or _same_class(statement, value)
        )
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _may_be_function(statement, node, value)
    if isinstance(node, ast.Import):
        return any(_imports(alias, value) for alias in node.names if bound_by(alias) == name)
    if isinstance(node, ast.ImportFrom) and not node.level:
        module = sys.modules.get(node.module or "")
        wanted = {a.asname or a.name: a.name for a in node.names}.get(name, name)
        found = getattr(module, wanted, _ABSENT)
        return found is _ABSENT or found is value
    return True


def _imports(alias: ast.alias, value: Any) -> bool:
    module = alias.name if alias.asname else alias.name.partition(".")[0]
    return sys.modules.get(module) is value


def _may_be_function(statement: Statement, node: Function, value: Any) -> bool:
    if node.decorator_list:
        return True
    if not isinstance(value, types.FunctionType):
        return False
    return any(same_code(code, value.__code__) for code in codes_of(statement, node.name))


def _same_class(statement: Statement, kind: type) -> bool:
    """Whether the methods that the class got from its body are those of this statement."""
    node = statement.node
    if not isinstance(node, ast.ClassDef) or node.name != kind.__qualname__:
        return False
    written = {
        child.name
        for child in node.body
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.decorator_list
    }
    if any(_mangled(name, kind) not in kind.__dict__ for name in written):
        return False
    for name, function in functions_of(kind):
        known = list(codes_of(statement, f"{kind.__qualname__}.{name}"))
        if not any(same_code(code, function.__code__) for code in known):
            return False
    return True


def _mangled(name: str, kind: type) -> str:
    """The attribute that a method of this name is."""
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if is_private else name


def functions_of(kind: type) -> Iterator[tuple[str, types.FunctionType]]:
    """Functions that a class got from its own body, by name."""
    for value in list(kind.__dict__.values()):
        for function in _unwrapped(value):
            name = function.__code__.co_name
            if function.__code__.co_qualname == f"{kind.__qualname__}.{name}":
                yield name, function


def _unwrapped(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        yield from (part for part in parts if isinstance(part, types.FunctionType))
    elif isinstance(value, types.FunctionType):
        yield value


def codes_of(statement: Statement, qualname: str) -> Iterator[types.CodeType]:
    """Code of the functions of this name that a statement defines.

    Compiled with the imports of its cell, as the body of a cell magic is, and without them: IPython
    compiles each statement of a plain cell for itself.
    """
    flags = statement.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for imports in (statement.imports, ()) if statement.imports else ((),):
        module = ast.Module(body=[*imports, statement.node], type_ignores=[])
        try:
            code = compile(module, statement.label, "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError):
            return
        yield from (inner for inner in _nested(code) if inner.co_qualname == qualname)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _nested(constant)


def same_code(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two pieces of code do the same, wherever they were written."""
    if _shape(one) != _shape(other):
        return False
    lines = _FIRST_LINE in one.co_names
    for mine, its in zip(one.co_consts, other.co_consts, strict=True):
        if type(mine) is not type(its):
            return False
        if isinstance(mine, types.CodeType):
            if not same_code(mine, its):
                return False
        elif mine != its and not (lines and isinstance(mine, int)):
            return False
    return True


def _shape(code: types.CodeType) -> tuple[object, ...]:
    names = (code.co_names, code.co_varnames, code.co_freevars)
    return code.co_code, names, len(code.co_consts)


def literal_in(node: ast.ClassDef, name: str) -> Any:
    """The value that a class body gives to a name as a literal; None when it does not."""
    for child in reversed(node.body):
        if isinstance(child, ast.Assign) and [ast.unparse(t) for t in child.targets] == [name]:
            return literal_of(child.value)
    return None


def literal_of(node: ast.expr) -> Any:
    """What a literal means; None of other expressions."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
