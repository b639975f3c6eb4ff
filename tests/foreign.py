"""The foreign place: another Python, the oldest Scrapy, this package installed as a user has it."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OLDEST = "2.13"  # of the releases of Scrapy that are supported
PREFERRED = ("3.12", "3.13", "3.11", "3.14")
INSTALL_S = 240.0


def other_python(*versions: str) -> tuple[str, str] | None:
    """Path and version of a Python of another minor version than this one's, if there is one.

    Args:
        versions: those that will do, the best first; any when none is named.
    """
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in versions or PREFERRED:
        if version == running:
            continue
        places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)
        on_path = shutil.which(f"python{version}")
        for path in [*map(str, places), *([on_path] if on_path else [])]:
            if _version(path) == version:
                return path, version
    return None


def _version(path: str) -> str:
    said = subprocess.run(
        [path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process of the test session at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of xdist share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of a virtual environment in which the package is installed, not linked.

    Made once per test session, whichever of its processes comes first.
    """
    found = other_python()
    if found is None:
        pytest.skip("there is no other Python minor version (3.11 or newer) on this machine")
    shared = session_folder(tmp_path_factory)
    folder, done = shared / "foreign", shared / "foreign.done"
    with locked(shared / "foreign.lock"):
        if not done.exists():
            _install(found[0], folder)
            done.touch()
    return folder / "bin" / "python"


def _install(python: str, folder: Path) -> None:
    subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=INSTALL_S)
    wanted = (f"scrapy=={OLDEST}.*", str(REPOSITORY))
    installed = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
        cwd=folder,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]
