"""Owns how shipped source is compiled: under the names and lines that its author knows.

Runs in a child. A traceback says `Cell In[3], line 12` or `quotes.py, line 12`, with the line's
text, and never where the child's folder is.
"""

import __future__

import functools
import importlib.machinery
import linecache
import operator
import os
import sys
import types
from collections import defaultdict
from collections.abc import Iterator
from importlib.machinery import FileFinder
from pathlib import Path
from typing import Any, Final

from vscrapy_magic.store.messages import Bundle

_FUTURE_FLAGS: Final = functools.reduce(
    operator.or_,
    (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names),
)


def entry_code(bundle: Bundle) -> Iterator[types.CodeType]:
    """The entry's parts, compiled; each is to be executed before the next is asked for.

    A file is one part. Of cells each segment is one, compiled at its lines within the cell, with
    the `from __future__` imports of those before it in force.
    """
    segments = [segment for segment in bundle.cells if segment[0] == bundle.entry]
    source = bundle.files[bundle.entry]
    if not segments:
        yield compile(source, bundle.entry, "exec", dont_inherit=True)
        return
    lines = source.decode().split("\n")
    ends = [first - 1 for _, first, _, _ in segments[1:]]
    parts = [
        (label, in_cell, lines[first - 1 : end])
        for (_, first, label, in_cell), end in zip(segments, [*ends, len(lines)], strict=True)
    ]
    _remember(parts)
    flags = 0
    for label, in_cell, part in parts:
        text = "\n" * (in_cell - 1) + "\n".join(part)
        code = compile(text, label, "exec", flags, dont_inherit=True)
        flags |= code.co_flags & _FUTURE_FLAGS
        yield code


def _remember(parts: list[tuple[str, int, list[str]]]) -> None:
    """Let tracebacks and `inspect.getsource` find the lines of cells, which are in no file."""
    cells: dict[str, dict[int, str]] = defaultdict(dict)
    for label, in_cell, part in parts:
        cells[label].update(enumerate(part, start=in_cell))
    for label, known in cells.items():
        shown = [known.get(number, "") + "\n" for number in range(1, max(known) + 1)]
        # Without a time of change the entry is never checked against a file.
        linecache.cache[label] = (sum(map(len, shown)), None, shown, label)


class _NamedLoader(importlib.machinery.SourceFileLoader):
    """Compiles modules of a bundle under their path in it; leaves no compiled files behind."""

    def __init__(self, fullname: str, path: str, root: str) -> None:
        super().__init__(fullname, path)
        self._root = root

    def source_to_code(  # type: ignore[override] # typeshed has it as in the abstract class
        self, data: Any, path: Any, **_: Any
    ) -> types.CodeType:
        name = os.path.relpath(os.fspath(path), self._root)
        lines = bytes(data).decode("utf-8", "replace").splitlines(keepends=True)
        linecache.cache[name] = (len(data), None, lines, name)
        return compile(data, name, "exec", dont_inherit=True)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing: the folder is the spider's."""


def name_modules(folder: Path) -> None:
    """Let modules in the child's folder be imported under their path in it, packages too."""
    root = os.fspath(folder.resolve())

    def named(fullname: str, path: str) -> _NamedLoader:
        return _NamedLoader(fullname, path, root)

    finder = FileFinder.path_hook(
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (named, importlib.machinery.SOURCE_SUFFIXES),  # type: ignore[arg-type] # makes a loader
    )

    def hook(path: str) -> Any:
        if not Path(path).resolve().is_relative_to(root):
            raise ImportError(path)
        return finder(os.fspath(Path(path).resolve()))

    sys.path_hooks.insert(0, hook)
    for known in [path for path in sys.path_importer_cache if path.startswith(root)]:
        del sys.path_importer_cache[known]
