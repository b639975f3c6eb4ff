"""A machine that has just got this repository: what Binder does with it, and `make demo`."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
INSTALL_S = 600.0
ENDED_S = 30.0
IDLE_S = "1"  # of the local cluster
TOOLS = ("sh", "test", "touch", "env", "uname")  # make, and what its recipes call


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed, without history, environments and caches."""
    if not shutil.which("git"):
        pytest.skip("no git on this machine")
    target = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", REPOSITORY.as_uri(), str(target)], check=True
    )
    return target


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has nothing yet; all of their processes end."""
    sockets = Path(tempfile.mkdtemp(prefix="vs-"))
    passed = ("LANG", "TERM", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")
    names = {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
    names |= {name: os.environ[name] for name in passed if name in os.environ}
    yield names | {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(sockets),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "VSCRAPY_IDLE_S": IDLE_S,
    }
    wait_until(lambda: not _left(sockets), ENDED_S, f"processes left: {_left(sockets)}")
    shutil.rmtree(sockets)


def _left(sockets: Path) -> list[str]:
    """Processes that have the user's folder in their environment or their command."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if process.environ().get("XDG_RUNTIME_DIR") == str(sockets) or str(sockets) in words:
                found.append(f"{process.pid} {words[:80]}")
        except psutil.Error:
            continue
    return found


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def _binder_python() -> str:
    """The interpreter that `binder/runtime.txt` names, or this one where there is none."""
    wanted = (REPOSITORY / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    installed = sorted(Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python"))
    return str(installed[-1]) if installed else shutil.which(f"python{wanted}") or sys.executable


def test_binder_installs_from_its_files_alone_and_runs_the_quick_start(
    clone: Path, newcomer: dict[str, str], tmp_path: Path
) -> None:
    """As repo2docker does it: from the root of the repository, into an environment of its own."""
    home = tmp_path / "binder"
    _run([_binder_python(), "-m", "venv", str(home)], clone, newcomer)
    install = ["-m", "pip", "install", "--quiet", "-r", "binder/requirements.txt"]
    _run([str(home / "bin" / "python"), *install], clone, newcomer)
    assert "4" in _run([str(home / "bin" / "jupyter-lab"), "--version"], clone, newcomer)
    notebooks = clone / "notebooks"
    execute = [str(home / "bin" / "jupyter"), "execute", "--inplace", "01-quickstart.ipynb"]
    _run(execute, notebooks, newcomer)
    text = (notebooks / "01-quickstart.ipynb").read_text()
    assert "finished" in text
    assert "ZeroDivisionError" in text


def test_make_demo_needs_python_and_make_and_leaves_no_process(
    clone: Path, newcomer: dict[str, str], tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", *TOOLS):
        path = shutil.which(name)
        if name == "make" and path is None:
            pytest.skip("no make on this machine")
        if path is not None:
            (tools / name).symlink_to(path)
    (tools / "python3").symlink_to(sys.base_prefix + "/bin/python3")
    said = _run(["make", "demo"], clone, newcomer | {"PATH": str(tools)})
    assert "200 items from 209 pages in " in said
    assert "What to type next:" in said
    again = _run(["make", "demo"], clone, newcomer | {"PATH": str(tools)})
    assert "200 items from 209 pages in " in again
    # `newcomer` sees that nothing is left running.
    assert {path.name for path in clone.iterdir() if path.name.startswith(".")} <= {
        *(".venv", ".git", ".ci", ".gitignore", ".dockerignore"),
    }
