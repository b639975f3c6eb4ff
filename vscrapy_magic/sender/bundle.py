"""Owns what travels: the source of a spider, from cells or a file, made into one bundle.

Runs in the sender's process. Source and plain data travel, never a pickle: a worker with another
Python, in an empty folder, that never heard of the notebook, runs it.
"""

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle_family import Source
from vscrapy_magic.sender.bundle_files import Files, module_roots
from vscrapy_magic.sender.bundle_names import binds
from vscrapy_magic.sender.bundle_pieces import Piece
from vscrapy_magic.sender.bundle_values import CannotShipError
from vscrapy_magic.sender.cells import Cell, read_statements
from vscrapy_magic.sender.closure import Closure
from vscrapy_magic.sender.shared_state import shared_state
from vscrapy_magic.sender.trees import tree_of
from vscrapy_magic.store.messages import Bundle, encode

__all__ = ["CannotShipError", "Cell", "Shipped", "ship_class", "ship_file"]

ENTRY: Final = "__notebook__.py"  # holds the cells' source; no name that a user's module has


class Shipped(msgspec.Struct, frozen=True):
    """A bundle, and what its sender should know of it.

    Attributes:
        digest: sha256 (hex) of the encoded bundle.
        notes: warnings to show, each naming cell and line.
        pinned: why one worker runs the crawl: `state on self: Quotes.token, Cell In[3] line 12`;
            empty when any number may.
    """

    bundle: Bundle
    digest: str
    notes: tuple[str, ...] = ()
    pinned: str = ""


def ship_class(
    kind: type,
    cells: Sequence[Cell],
    namespace: Mapping[str, object],
    *,
    folder: Path,
    files: Sequence[Path] = (),
    env: Mapping[str, str] = {},
    names: Sequence[str] = (),
) -> Shipped:
    """The bundle of a spider class that cells of a notebook define.

    Reads files, executes nothing, and changes nothing.

    Args:
        kind: the class; found by identity, so an older one of the same name can be shipped.
        cells: all that was executed, in order, a cell as often as it ran.
        namespace: of the notebook, as it is now.
        folder: the notebook's; modules and files beside it travel when the source names them.
        names: further names of the notebook that must travel (classes that `-s` settings name).

    Raises:
        CannotShipError: something that the spider uses exists in this process only.
        ConfigError: a path in `files` does not exist.
    """
    closure = Closure(read_statements(cells), namespace)
    name = closure.need_class(kind)
    closure.need_names(names)
    pieces = closure.pieces
    gathered = Files(module_roots(folder))
    for piece in pieces:
        gathered.add_source(Source(piece.label, piece.line, piece.tree))
    for path in files:
        gathered.add_path(path)
    source, segments = _entry(pieces)
    gathered.add_content(ENTRY, source)
    bundle = Bundle(
        files=gathered.content,
        entry=ENTRY,
        cells=segments,
        spider=name,
        env=dict(env),
    )
    return _shipped(bundle, gathered, kind)


def ship_file(path: Path, *, files: Sequence[Path] = (), env: Mapping[str, str] = {}) -> Shipped:
    """The bundle of a spider file, with what it imports and names from beside it.

    Raises:
        ConfigError: the file cannot be read, or is no Python.
        CannotShipError: the files are too large.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if path.suffix not in {".py", ".pyw"}:
        raise ConfigError(f"{path}: a spider file ends in .py")
    tree = _parsed(path, content)
    gathered = Files([path.parent.resolve()])
    gathered.add_file(path, path.name)
    gathered.add_source(Source(path.name, 1, tree))
    for each in files:
        gathered.add_path(each.absolute())
    bundle = Bundle(files=gathered.content, entry=path.name, env=dict(env))
    return _shipped(bundle, gathered, None)


def _parsed(path: Path, content: bytes) -> ast.Module:
    try:
        return tree_of(content, str(path))
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"{where}: {getattr(exc, 'msg', exc)}") from exc


def _shipped(bundle: Bundle, gathered: Files, kind: type | None) -> Shipped:
    notes = [
        f"{path} ({place}) is a file of this machine, which does not travel; name it by a path "
        "relative to the notebook"
        for path, place in gathered.absolute.items()
    ]
    notes += _unstarted(gathered.sources, kind)
    spiders = None if kind is None else frozenset(base.__name__ for base in kind.__mro__)
    return Shipped(
        bundle=bundle,
        digest=hashlib.sha256(encode(bundle)).hexdigest(),
        notes=tuple(notes),
        pinned=shared_state(gathered.sources, spiders),
    )


def _unstarted(sources: Sequence[Source], kind: type | None) -> list[str]:
    """Spiders that newer versions of Scrapy would not start: they crawl nothing and say nothing."""
    if kind is not None and _defines(kind, "start"):
        return []
    notes = []
    for source in sources:
        for node in source.tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            methods = {name: child for child in node.body for name in binds(child)}
            is_meant = kind is None or node.name in {base.__name__ for base in kind.__mro__}
            if is_meant and "start_requests" in methods and "start" not in methods:
                notes.append(
                    f"{node.name} has start_requests() but no start() "
                    f"({source.place(methods['start_requests'].lineno)}): Scrapy 2.16 and newer "
                    "do not call it and crawl nothing; write `async def start(self)` instead"
                )
    return notes


def _defines(kind: type, name: str) -> bool:
    """Whether a class of the user's own among the bases has a method."""
    return any(
        name in base.__dict__
        for base in kind.__mro__
        if base.__module__.partition(".")[0] not in {"scrapy", "builtins"}
    )


def _entry(pieces: Sequence[Piece]) -> tuple[bytes, tuple[tuple[str, int, str, int], ...]]:
    """The pieces as one file, and which of its lines are which lines of which cell."""
    lines: list[str] = []
    segments = []
    for piece in pieces:
        segments.append((ENTRY, len(lines) + 1, piece.label, piece.line))
        lines += piece.text.split("\n")
    return "\n".join([*lines, ""]).encode(), tuple(segments)
