"""Owns which files travel with shipped source: modules beside it, and files that it names.

Runs in the sender's process. Nothing is imported or executed: modules are found by their place.
"""

import ast
import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle_family import Source
from vscrapy_magic.sender.bundle_values import CannotShipError
from vscrapy_magic.sender.cells import parse

BUNDLE_BYTES: Final = 50 * 1024 * 1024  # of all files of a bundle together
NAME_CHARS: Final = 255  # of a text that may be the path of a file
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# Settings that name what is written.
_WRITTEN: Final = frozenset(
    {"FEEDS", "FEED_URI", "LOG_FILE", "JOBDIR", "HTTPCACHE_DIR", "FILES_STORE", "IMAGES_STORE"}
)
_OWN: Final = "vscrapy_magic"
_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})


def module_roots(folder: Path) -> list[Path]:
    """Where modules of the user's own lie: the folder, and what was put on `sys.path`."""
    found = [folder.resolve()]
    for entry in sys.path:
        path = Path(entry).resolve()
        is_system = any(path == each or path.is_relative_to(each) for each in _system_folders())
        if path.is_dir() and not is_system and not _PACKAGES & set(path.parts):
            found.append(path)
    return list(dict.fromkeys(found))


@functools.cache
def _system_folders() -> frozenset[Path]:
    """Python's own folders; the same as long as a process lives."""
    system = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    system |= {Path(sys.prefix, "bin").resolve(), Path(sys.base_prefix, "bin").resolve()}
    return frozenset(system)


class Files:
    """The files of one bundle, gathered; their size is bounded.

    Args:
        roots: where modules are looked for; the first is also where named files lie.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = list(roots)
        self._folder = roots[0]
        self._modules: set[str] = set()
        self._bytes = 0
        self.content: dict[str, bytes] = {}
        self.sources: list[Source] = []
        self.absolute: dict[str, str] = {}  # paths of this machine -> where the source names them

    def add_source(self, source: Source, package: str = "", beside: Path | None = None) -> None:
        """Take in source, what it imports from beside it, and files that it names.

        Args:
            package: dotted name of the package that the source is in.
            beside: folder of the source, when it is not the first root.
        """
        self.sources.append(source)
        for name in _imported(source.tree, package):
            self._add_module(name)
        texts = {text: source.place(line) for text, line in _texts(source.tree)}
        for text in texts:
            if _DOTTED.fullmatch(text):
                self._add_module(text)
        self._add_named(texts, beside)

    def add_path(self, path: Path) -> None:
        """Take in a file, or a folder with all that is in it, that the user named.

        Raises:
            ConfigError: there is nothing at that path.
            CannotShipError: the bundle would be too large.
        """
        path = Path(os.path.normpath(self._folder / path))
        if not path.exists():
            raise ConfigError(f"--file {path}: no such file")
        base = self._folder if path.is_relative_to(self._folder) else path.parent
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file():
                self.add_file(each, each.relative_to(base).as_posix())

    def _add_named(self, texts: Mapping[str, str], beside: Path | None) -> None:
        folders = [self._folder, *([beside] if beside else [])]
        inner = [text for text in texts if self._is_folder(text)]
        for text, place in texts.items():
            if not _may_be_path(text):
                continue
            if Path(text).is_absolute():
                if _is_file(Path(text)):
                    self.absolute.setdefault(text, place)
                continue
            for base in (*folders, *(folders[0] / name for name in inner)):
                path = Path(os.path.normpath(base / text))
                if _is_file(path) and path.is_relative_to(self._folder):
                    self.add_file(path, path.relative_to(self._folder).as_posix())

    def _is_folder(self, text: str) -> bool:
        if not _may_be_path(text) or text.strip("./") == "" or Path(text).is_absolute():
            return False
        try:
            return (self._folder / text).is_dir()
        except OSError:
            return False

    def _add_module(self, name: str) -> None:
        """A module of the user's own with its packages; others are the worker's matter."""
        parts = name.split(".")
        if parts[0] == _OWN:
            return
        for root in self._roots:
            if _module_file(root, parts[:1]) or (root / parts[0]).is_dir():
                for count in range(1, len(parts) + 1):
                    self._add_source(root, parts[:count])
                if (root / parts[0]).is_dir() or (root / f"{parts[0]}.py").is_file():
                    return

    def _add_source(self, root: Path, parts: Sequence[str]) -> None:
        name = ".".join(parts)
        path = _module_file(root, parts)
        if path is None or name in self._modules:
            return
        self._modules.add(name)
        relative = path.relative_to(root).as_posix()
        self.add_file(path, relative)
        if path.suffix != ".py":
            return
        tree = parse(path.read_text(encoding="utf-8", errors="replace"))
        if tree is None:
            return
        is_package = path.name == "__init__.py"
        package = name if is_package else ".".join(parts[:-1])
        self.add_source(Source(relative, 1, tree), package, path.parent)

    def add_file(self, path: Path, name: str) -> None:
        """Take in a file under a name of its own; once.

        Raises:
            CannotShipError: the bundle would be too large.
        """
        if name not in self.content:
            self._count(name, path.stat().st_size)
            self.content[name] = path.read_bytes()

    def add_content(self, name: str, content: bytes) -> None:
        """Take in what is in no file."""
        self._count(name, len(content))
        self.content[name] = content

    def _count(self, name: str, size: int) -> None:
        self._bytes += size
        if self._bytes > BUNDLE_BYTES:
            sizes = {name: size, **{n: len(c) for n, c in self.content.items()}}
            biggest = max(sizes, key=sizes.__getitem__)
            raise CannotShipError(
                f"the files that travel with the spider are larger than {BUNDLE_BYTES >> 20} MB "
                f"together; the largest is {biggest} ({sizes[biggest] / 2**20:.1f} MB). Let the "
                "spider read it from where the workers can, or do not name it in its source"
            )


def _module_file(root: Path, parts: Sequence[str]) -> Path | None:
    path = root.joinpath(*parts)
    if _is_file(path / "__init__.py"):
        return path / "__init__.py"
    source = path.with_name(f"{parts[-1]}.py")
    return source if _is_file(source) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _may_be_path(text: str) -> bool:
    return 0 < len(text) <= NAME_CHARS and not re.search(r"[\n\0<>|]|://", text)


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a tree imports, wherever in it; `from a import b` may mean a module a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _texts(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Texts of a tree that are not the names of what it writes."""
    skipped = _written(tree)
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno
        stack += list(ast.iter_child_nodes(node))[::-1]


def _written(tree: ast.AST) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in _WRITTEN:
                    found.add(id(value))
        elif isinstance(node, ast.Call) and "open" in ast.unparse(node.func):
            modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
            if any(_is_for_writing(mode) for mode in modes):
                found |= {id(argument) for argument in node.args[:1]}
    return found


def _is_for_writing(mode: ast.expr) -> bool:
    text = mode.value if isinstance(mode, ast.Constant) else ""
    return isinstance(text, str) and bool(set("wax") & set(text))
