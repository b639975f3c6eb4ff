"""A local cluster of one test alone: its folder, its processes, and that all of them end."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

ENDED_WITHIN_S = 15.0  # measured: the idle time and 0.5 s


@contextmanager
def cluster_home(monkeypatch: pytest.MonkeyPatch, *, idle_s: str) -> Iterator[Path]:
    """A runtime folder of this test alone; whatever is left of its cluster is ended."""
    folder = Path(tempfile.mkdtemp(prefix="vs-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("VSCRAPY_IDLE_S", idle_s)
    monkeypatch.delenv("VSCRAPY_LOCAL_WORKERS", raising=False)
    monkeypatch.delenv("VSCRAPY_REDIS_URL", raising=False)
    yield folder
    for keeper in processes(folder, "store.keeper"):
        keeper.terminate()
    wait_until(lambda: not processes(folder), ENDED_WITHIN_S, f"left: {processes(folder)}")
    left = [path.name for path in folder.glob("vscrapy/cluster/*") if path.is_socket()]
    assert not left, f"sockets left: {left}"
    kept = {path.name for path in folder.glob("vscrapy/*")}
    # What the server holds is kept when a keeper is told to go; locks outlive what they protect.
    assert kept <= {"cluster", "cluster.lock", "keeper.lock"}, kept
    shutil.rmtree(folder)


def processes(home: Path, *words: str) -> list[psutil.Process]:
    """Processes of the cluster: each has the runtime folder in its environment or its title."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            line = " ".join(process.cmdline())
            is_ours = str(home) in line or process.environ().get("XDG_RUNTIME_DIR") == str(home)
        except psutil.Error:
            continue
        if is_ours and all(word in line for word in words):
            found.append(process)
    return found
