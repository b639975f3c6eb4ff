"""Environments with another Scrapy: this package and one release of Scrapy, installed by pip."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.terminal import RUN_S, Terminal
from tests.foreign import REPOSITORY, locked, session_folder
from tests.waiting import wait_until
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence

RELEASES = ("2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19")  # the oldest supported first
INSTALL_S = 300.0
WORKERS = 2
END_S = 10.0


@pytest.fixture(scope="session")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The interpreter of an environment with the newest Scrapy of a minor release, and packages.

    Each is made once per test session, whichever of its processes comes first.
    """
    shared = session_folder(tmp_path_factory)

    def python(release: str, *packages: str, interpreter: str = sys.executable) -> Path:
        name = " ".join((interpreter, release, *packages))
        folder = shared / f"scrapy-{release}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        done = folder.with_name(f"{folder.name}.done")
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                _install(interpreter, folder, (f"scrapy=={release}.*", *packages))
                done.touch()
        return folder / "bin" / "python"

    return python


def _install(interpreter: str, folder: Path, packages: Sequence[str]) -> None:
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True, timeout=INSTALL_S)
    words = ("-m", "pip", "install", "--quiet", str(REPOSITORY), *packages)
    installed = subprocess.run(
        [str(folder / "bin" / "python"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
        cwd=folder,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]


class Installed(Terminal):
    """A user whose environment has this package installed, and a Scrapy of its own."""

    def __init__(self, python: Path, home: Path, url: str) -> None:
        super().__init__(home, url)
        self.python = str(python)
        self.environment.pop("PYTHONPATH", None)

    def command(self, *words: str) -> list[str]:
        return [self.python, "-m", "vscrapy_magic.cli", *words]

    def log_of(self, folder: Path, module: str, *words: str) -> str:
        """What a module says that must succeed; nothing of this repository is on its path."""
        ended = subprocess.run(
            [self.python, "-m", module, *words, "-L", "INFO"],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stderr

    @contextmanager
    def serving(self, store: Store, folder: Path) -> Iterator[None]:
        """Two workers of this environment."""
        words = ("-m", "vscrapy_magic.worker", store.url, "-n", str(WORKERS), "--name", "local")
        with (
            (folder / "workers.log").open("w") as log,
            subprocess.Popen(
                [self.python, *words], cwd=folder, env=self.environment, stderr=log
            ) as process,
        ):
            try:
                wait_until(
                    lambda: len(Presence(store).workers()) == WORKERS or process.poll(),
                    *(60, "workers"),
                )
                assert process.poll() is None, Path(log.name).read_text()
                yield
            finally:
                family = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                process.wait(END_S)
                wait_until(lambda: not any(p.is_running() for p in family), END_S, "their end")
