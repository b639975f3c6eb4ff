"""Owns what a statement does with the names of its module: binds, uses and changes.

Runs in the sender's process. Scopes are judged by Python's own `symtable`.
"""

import ast
import functools
import re
import symtable
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vscrapy_magic.sender.cells import parse

Function = ast.FunctionDef | ast.AsyncFunctionDef
STATEMENTS_MAX: Final = 10_000  # whose names are remembered: those of a large notebook
_INLINE: Final = frozenset({"listcomp", "setcomp", "dictcomp", "genexpr"})
_OWN_SCOPE: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
# Methods called for what they do to their object.
_CHANGES: Final = re.compile(
    r"append|extend|insert|remove|discard|pop\w*|clear|sort|reverse|push|configure"
    r"|add\w*|update\w*|set\w*|register\w*|include\w*"
)
_MAIN_PATH: Final = re.compile(r"__main__\.([A-Za-z_]\w*)(\.\w+)*")


@dataclass(slots=True)
class Uses:
    """Names of the module that a piece of source uses; kept, so read it only.

    Attributes:
        now: when it is executed.
        later: when what it defines is called.
        maybe: perhaps not at all: names in texts that are annotations.
    """

    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)


@functools.lru_cache(STATEMENTS_MAX)
def uses(text: str) -> Uses:
    """Names of the module that the source uses; none of source that is no Python."""
    found = Uses()
    tree = parse(text)
    if tree is None:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _walk_scopes(symtable.symtable(text, "<cell>", "exec"), found, later=False, top=True)
    except SyntaxError:
        # A top-level await that this Python's tables do not know.
        found.now |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _MAIN_PATH.fullmatch(node.value.strip())
            if match:
                found.later.add(match[1])
    for annotation in _annotations(tree):
        found.maybe |= {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    return found


def _walk_scopes(table: symtable.SymbolTable, found: Uses, *, later: bool, top: bool) -> None:
    kind = str(table.get_type())
    if kind == "function" and table.get_name() not in _INLINE:
        later = True
    for symbol in table.get_symbols():
        if not symbol.is_referenced() and not (symbol.is_global() and not top):
            continue
        name = symbol.get_name()
        if top or symbol.is_global():
            (found.later if later else found.now).add(name)
        elif kind == "class" and symbol.is_local():
            # `rules = rules` in a class body reads the module's name before it has its own.
            found.maybe.add(name)
    for child in table.get_children():
        _walk_scopes(child, found, later=later, top=False)


def _annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Annotations, and texts in them as what they say."""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if not isinstance(annotation, ast.expr):
                continue
            yield annotation
            for part in ast.walk(annotation):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    inner = parse(part.value)
                    if inner is not None and inner.body and isinstance(inner.body[0], ast.Expr):
                        yield inner.body[0].value


def immediate(node: ast.AST) -> Iterator[ast.AST]:
    """A statement's nodes that are executed with it: no bodies of functions and classes."""
    yield node
    if isinstance(node, _OWN_SCOPE):
        return
    for child in ast.iter_child_nodes(node):
        yield from immediate(child)


def binds(node: ast.stmt) -> frozenset[str]:
    """Names of the module that a statement binds."""
    names, stars = _binds(node)
    return names.union(*map(_bound_from, stars)) if stars else names


@functools.lru_cache(STATEMENTS_MAX)
def _binds(node: ast.stmt) -> tuple[frozenset[str], tuple[ast.ImportFrom, ...]]:
    """What a statement surely binds, and `*` imports, of which the modules decide."""
    found: set[str] = set()
    stars = []
    for part in immediate(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            found.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(part.name)
        elif isinstance(part, ast.Import):
            found |= {bound_by(alias) for alias in part.names}
        elif isinstance(part, ast.ImportFrom) and part.module != "__future__":
            if part.names[0].name == "*":
                stars.append(part)
            else:
                found |= {alias.asname or alias.name for alias in part.names}
        elif isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
            found.add(part.name)
        elif isinstance(part, ast.MatchMapping) and part.rest:
            found.add(part.rest)
    return frozenset(found), tuple(stars)


def bound_by(alias: ast.alias) -> str:
    """The name that one part of an import statement binds."""
    return alias.asname or alias.name.partition(".")[0]


def _bound_from(node: ast.ImportFrom) -> set[str]:
    """What a `*` import binds."""
    module = sys.modules.get(node.module or "")
    if module is None:
        return set()
    public = [name for name in vars(module) if not name.startswith("_")]
    return set(getattr(module, "__all__", public))


@functools.lru_cache(STATEMENTS_MAX)
def changes(node: ast.stmt) -> frozenset[tuple[str, str]]:
    """What a statement changes in place, as (name, attribute); "" is the object as a whole."""
    found: set[tuple[str, str]] = set()
    for part in immediate(node):
        if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
            found.add(_root(part))
        elif isinstance(part, ast.Call):
            if isinstance(part.func, ast.Attribute) and _CHANGES.fullmatch(part.func.attr):
                found.add(_root(part.func.value))
            elif isinstance(part.func, ast.Name) and part.func.id == "setattr" and part.args:
                name, attribute = _root(part.args[0])
                given = part.args[1] if len(part.args) > 1 else None
                if not attribute and isinstance(given, ast.Constant):
                    attribute = str(given.value)
                found.add((name, attribute))
    return frozenset((name, attribute) for name, attribute in found if name)


def called(node: ast.stmt) -> set[str]:
    """Names of which a statement does nothing but call a method: `config.load("x.json")`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        return {_root(call.func)[0]} - {""}
    return set()


def _root(node: ast.expr) -> tuple[str, str]:
    attribute = ""
    while isinstance(node, ast.Attribute | ast.Subscript):
        attribute = node.attr if isinstance(node, ast.Attribute) else ""
        node = node.value
    return (node.id, attribute) if isinstance(node, ast.Name) else ("", "")


def line_of(tree: ast.AST, name: str) -> tuple[int, str]:
    """First line that reads a name, and in which function or class; line 1 when none does."""
    return next(_readers(tree, name, ()), (getattr(tree, "lineno", 1), ""))


def _readers(node: ast.AST, name: str, inside: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
        yield node.lineno, ".".join(inside)
    if isinstance(node, ast.Constant) and node.value == f"__main__.{name}":
        yield node.lineno, ".".join(inside)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        inside = (*inside, node.name)
    for child in ast.iter_child_nodes(node):
        yield from _readers(child, name, inside)
