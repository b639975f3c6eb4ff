"""Owns what is read of the sender's disk to be sent: a spider's project, or its file; data files.

Runs in the sender's process. The user's code is not imported here: another process has done that
(`inspecting.py`) and told what it found.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle_family import Source as SourceTree
from vscrapy_magic.sender.bundle_files import Files
from vscrapy_magic.sender.shared_state import shared_state
from vscrapy_magic.sender.trees import tree_of
from vscrapy_magic.store.inspection import Inspection

FILES_BYTES_MAX: Final = 50 * 1024 * 1024  # of all shipped files together
_CONFIG: Final = "scrapy.cfg"
_SKIPPED: Final = frozenset(
    {"__pycache__", "node_modules", "build", "dist", "site-packages", "venv", "env"}
)
_SKIPPED_AT_ROOT: Final = frozenset({"tests", "test", "docs"})  # unless a spider imports them
_NO_SOURCE: Final = (".pyc", ".pyo", ".egg-info")
_PLACEHOLDER: Final = re.compile(r"%\([^)]*\)[-+ #0]*\d*\.?\d*[a-z]")  # in addresses of feeds


def source_files(found: Inspection) -> dict[str, bytes]:
    """All files of a project, and of the user's own modules that it imports from elsewhere.

    Names are relative to the folder that they are imported from.

    Raises:
        ConfigError: they are too large together; names the largest.
    """
    root = Path(found.root) if found.root else None
    paths: dict[str, Path] = {}
    imported = {top for folder, top in found.modules if root and Path(folder) == root}
    if root is not None:
        paths |= {str(path.relative_to(root)): path for path in _project(root, imported)}
    for folder, top in found.modules:
        for path in _module(Path(folder), top):
            if root is None or not path.is_relative_to(root):
                paths.setdefault(str(path.relative_to(folder)), path)
    feeds = [_pattern(uri) for uri in found.feeds]
    kept = {
        name: path
        for name, path in paths.items()
        if not any(fnmatch.fnmatchcase(str(path), feed) for feed in feeds)
    }
    return read_files(kept)


def shared_state_of(found: Inspection) -> str:
    """Why only one worker may run the spider; empty when any number may.

    Looks at the source of the spider, and of the modules that it and the settings name.
    """
    root = Path(found.root or Path(found.file).parent)
    gathered = Files([root])
    for path, package in _beginnings(found, root):
        tree = tree_of(path.read_bytes(), str(path))
        gathered.add_source(SourceTree(str(path.relative_to(root)), 1, tree), package)
    return shared_state(gathered.sources, frozenset(found.classes))


def _beginnings(found: Inspection, root: Path) -> Iterator[tuple[Path, str]]:
    """Files of the spider and of the settings below the root, with the package of each."""
    settings = root.joinpath(*found.project.split(".")).with_suffix(".py")
    for path in (Path(found.file), settings):
        if path.is_file() and path.is_relative_to(root):
            yield path, ".".join(path.relative_to(root).parts[:-1])


def data_files(names: Iterable[str]) -> dict[str, bytes]:
    """Files named by `--file`, under their names as seen from here.

    Raises:
        ConfigError: one cannot be read, or they are too large together.
    """
    paths = {}
    for name in names:
        path = Path(name).absolute()
        if not path.is_file():
            what = "is no file" if path.exists() else "no such file"
            raise ConfigError(f"--file {name}: {what}")
        inside = path.is_relative_to(Path.cwd())
        paths[str(path.relative_to(Path.cwd())) if inside else path.name] = path
    return read_files(paths)


def read_files(paths: dict[str, Path]) -> dict[str, bytes]:
    """The content of files by name.

    Raises:
        ConfigError: one cannot be read, or they are too large together; names the largest.
    """
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    if sum(sizes.values()) > FILES_BYTES_MAX:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"{len(sizes)} files to send are larger than {FILES_BYTES_MAX >> 20} MB together; the "
            f"largest is {paths[largest]} ({sizes[largest] >> 20} MB): move it out of the project"
        )
    try:
        return {name: path.read_bytes() for name, path in sorted(paths.items())}
    except OSError as exc:
        raise ConfigError(f"{exc.filename}: {exc.strerror}") from exc


def _project(root: Path, imported: set[str]) -> Iterator[Path]:
    """Modules and packages beside `scrapy.cfg`, with their data."""
    for path in sorted(root.iterdir()):
        if path.is_file() and (path.suffix == ".py" or path.name == _CONFIG):
            yield path
        elif path.is_dir() and not _is_skipped(path):
            wanted = path.name in imported or path.name not in _SKIPPED_AT_ROOT
            if wanted and any(path.glob("*.py")):
                yield from _files(path)


def _module(folder: Path, top: str) -> Iterator[Path]:
    if (folder / top).is_dir():
        yield from _files(folder / top)
    else:
        yield from (path for path in [folder / f"{top}.py"] if path.is_file())


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, without what is made, installed or hidden."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not _is_skipped(here / name))
        for name in sorted(names):
            path = here / name
            hidden = name.startswith(".") or name.endswith(_NO_SOURCE)
            if not hidden and stat.S_ISREG(path.stat().st_mode):
                yield path


def _is_skipped(folder: Path) -> bool:
    name = folder.name
    made = name in _SKIPPED or name.startswith(".") or name.endswith(_NO_SOURCE)
    return made or (folder / "pyvenv.cfg").exists()


def _pattern(uri: str) -> str:
    """A feed's address as a pattern of the paths of the files that it writes here."""
    path = uri.removeprefix("file://")
    parts = re.split(_PLACEHOLDER, os.path.abspath(path))  # noqa: PTH100 - not a path yet
    return "*".join(re.sub(r"([*?[])", r"[\1]", part) for part in parts)
