"""Environments with another Scrapy: this package and one release of Scrapy, installed by pip."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.foreign import REPOSITORY, locked, session_folder

RELEASES = ("2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19")  # the oldest supported first
INSTALL_S = 300.0


@pytest.fixture(scope="session")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The interpreter of an environment with the newest Scrapy of a minor release.

    Each is made once per test session, whichever of its processes comes first.
    """
    shared = session_folder(tmp_path_factory)

    def python(release: str) -> Path:
        folder, done = shared / f"scrapy-{release}", shared / f"scrapy-{release}.done"
        with locked(shared / f"scrapy-{release}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                _install(release, folder)
                done.touch()
        return folder / "bin" / "python"

    return python


def _install(release: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=INSTALL_S)
    wanted = (f"scrapy=={release}.*", str(REPOSITORY))
    installed = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
        cwd=folder,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]
