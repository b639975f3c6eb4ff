"""A notebook without IPython: cells run one after the other in a `__main__` of their own."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vscrapy_magic.runtime.loader import run_entry, write_files
from vscrapy_magic.sender.bundle import Cell, Shipped, ship_class
from vscrapy_magic.store.messages import Bundle


class Notebook:
    """Cells, and the namespace in which they ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = types.ModuleType("__main__")
        self.module.__dict__["__builtins__"] = __builtins__
        self.cells: list[Cell] = []

    @property
    def namespace(self) -> dict[str, Any]:
        return vars(self.module)

    def run(self, source: str, *, first_line: int = 1) -> None:
        """Run a cell; `first_line=2` is the body of a cell magic."""
        number = len(self.cells) + 1
        self.cells.append(Cell(f"Cell In[{number}]", source, first_line))
        flags = 0
        for cell in self.cells[:-1]:
            if "from __future__ import annotations" in cell.source:
                flags = 0x1000000
        with self.as_main():
            code = compile(
                source, f"/tmp/ipykernel_1/{number}.py", "exec", flags, dont_inherit=True
            )
            exec(code, self.namespace)

    @contextmanager
    def as_main(self) -> Iterator[None]:
        before, path = sys.modules["__main__"], list(sys.path)
        sys.modules["__main__"] = self.module
        sys.path.insert(0, str(self.folder))
        try:
            yield
        finally:
            sys.modules["__main__"] = before
            sys.path[:] = path

    def ship(self, name: str, **options: Any) -> Shipped:
        """The bundle of the class of this name."""
        kind = self.namespace[name]
        return ship_class(kind, self.cells, self.namespace, folder=self.folder, **options)


@contextmanager
def loaded(bundle: Bundle, folder: Path) -> Iterator[dict[str, Any]]:
    """The namespace of a bundle's entry, run in this process as a child runs it."""
    modules, path = dict(sys.modules), list(sys.path)
    hooks, cached = list(sys.path_hooks), dict(sys.path_importer_cache)
    folder.mkdir(exist_ok=True)
    write_files(bundle, folder)
    sys.path.insert(0, str(folder))
    for name in {Path(name).parts[0].removesuffix(".py") for name in bundle.files}:
        for known in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[known]
    try:
        module = run_entry(bundle, folder)
        assert module is not None
        yield vars(module)
    finally:
        sys.modules.clear()
        sys.modules.update(modules)
        sys.path[:], sys.path_hooks[:] = path, hooks
        sys.path_importer_cache.clear()
        sys.path_importer_cache.update(cached)


def entry_of(shipped: Shipped) -> str:
    """The source that travels."""
    return shipped.bundle.files[shipped.bundle.entry].decode()
