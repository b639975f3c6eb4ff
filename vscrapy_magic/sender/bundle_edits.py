"""Owns the edits of shipped source: what an expression gave in the notebook takes its place.

Runs in the sender's process. `start_urls = df.url.tolist()` in a class body becomes the list, so
that no DataFrame is needed. Edited source keeps its number of lines: tracebacks stay true.
"""

import abc
import ast
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from vscrapy_magic.sender.bundle_match import literal_of
from vscrapy_magic.sender.bundle_names import Function
from vscrapy_magic.sender.bundle_values import is_plain, is_writable

# Classes of other metaclasses, and these, make something else of what is assigned in their body.
_MAKERS: Final = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "_fields")
_META_PLAIN: Final = ("ItemMeta", "type", "ABCMeta")

Edit = tuple[ast.expr, Any]


class Names(Protocol):
    """What the module's names stand for."""

    def is_alias(self, name: str, value: Any) -> bool:
        """Whether a name stands for this very object, and travels: then the text may stay."""
        ...

    def is_data(self, name: str) -> bool:
        """Whether a name stands for an object that is no module, class or function."""
        ...


def is_ordinary(kind: type) -> bool:
    """Whether an assignment in a class body is what gives the class its attribute."""
    meta = type(kind)
    return (meta in {type, abc.ABCMeta} or meta.__name__ in _META_PLAIN) and not any(
        hasattr(kind, name) for name in _MAKERS
    )


def class_edits(node: ast.ClassDef, kind: type, names: Names) -> Iterator[Edit]:
    """Expressions in a class body with the plain values that they gave, or have by now."""
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            inner = kind.__dict__.get(child.name)
            if isinstance(inner, type):
                yield from class_edits(child, inner, names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from default_edits(child, kind.__dict__.get(child.name), names)
        elif is_ordinary(kind):
            yield from _attribute_edits(child, kind, names)


def _attribute_edits(node: ast.stmt, kind: type, names: Names) -> Iterator[Edit]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    written = getattr(node, "value", None)
    if len(targets) != 1 or not isinstance(targets[0], ast.Name) or written is None:
        return
    if isinstance(node, ast.AugAssign | ast.Expr):
        return
    yield from _value_edits(written, kind.__dict__.get(targets[0].id, node), names)


def _value_edits(written: ast.expr, value: Any, names: Names) -> Iterator[Edit]:
    if isinstance(written, ast.Name) and names.is_alias(written.id, value):
        return
    if is_plain(value):
        if not _says(written, value):
            yield written, value
    elif is_writable(value):
        # A pattern or a path: its source is better, unless that needs data of the notebook.
        used = {part.id for part in ast.walk(written) if isinstance(part, ast.Name)}
        if any(names.is_data(name) for name in used):
            yield written, value
    elif isinstance(written, ast.Dict) and type(value) is dict:
        for key, inner in zip(written.keys, written.values, strict=True):
            known = literal_of(key) if key is not None else None
            if isinstance(known, str) and known in value and _is_computed(inner):
                yield from _value_edits(inner, value[known], names)


def _says(node: ast.expr, value: Any) -> bool:
    """Whether an expression is a literal of this value."""
    said = literal_of(node)
    return type(said) is type(value) and bool(said == value)


def default_edits(node: Function, function: Any, names: Names) -> Iterator[Edit]:
    """Default arguments that are no literals, with the plain values that they gave."""
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType) or node.decorator_list:
        return
    given: list[tuple[ast.expr | None, Any]] = [
        *zip(node.args.defaults, function.__defaults__ or (), strict=False)
    ]
    keyword = function.__kwdefaults__ or {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        given.append((default, keyword.get(argument.arg, node)))
    for default, value in given:
        if isinstance(default, ast.Name) or (default is not None and _is_computed(default)):
            yield from _value_edits(default, value, names)


def _is_computed(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Call | ast.Attribute | ast.Subscript) for part in ast.walk(node)
    )


def edited(text: str, edits: Iterable[tuple[ast.expr, str]]) -> str:
    """The text with each expression replaced by another one of one line, on as many lines."""
    lines = [line.encode() for line in text.split("\n")]
    for node, written in sorted(edits, key=lambda edit: _start(edit[0]), reverse=True):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before = lines[first][: node.col_offset]
        after = lines[last][node.end_col_offset or 0 :]
        body = f"({written}".encode()
        lines[first : last + 1] = [before + body, *[b""] * (last - first)]
        lines[last] += b")" + after
    return b"\n".join(lines).decode()


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def narrowed(node: ast.Import | ast.ImportFrom, wanted: Callable[[ast.alias], bool]) -> str | None:
    """An import of several names with only those that are wanted; None when all are.

    What the notebook imported beside them need not be there where the spider runs.
    """
    kept = [alias for alias in node.names if wanted(alias)]
    if len(kept) == len(node.names) or not kept:
        return None
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(names=kept))
    return ast.unparse(ast.ImportFrom(module=node.module, names=kept, level=node.level))
