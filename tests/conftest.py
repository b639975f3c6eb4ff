"""Fixtures of all tests: a private Valkey, an open store on it, and hygiene that is always on."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until
from vscrapy_magic.store import keys
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A server of this test process alone; nothing of it is written to disk."""
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/tmp"))
    try:
        with EmbeddedServer(folder, persist=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    """An open store on an empty server; every key that a test leaves must be a known one."""
    with Store.connect(server.url) as opened:
        opened.client.flushall()
        yield opened
        unknown = [key for key in opened.client.keys() if not keys.is_known(key.decode())]
        assert not unknown, f"keys without a row in keys.py: {unknown}"


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _named(known: set[int]) -> list[str]:
    """Command lines of our processes that are not known."""
    found = []
    for child in psutil.Process().children(recursive=True):
        if child.pid not in known:
            line = "a zombie"
            with suppress(psutil.Error):
                line = " ".join(child.cmdline())
            found.append(f"{child.pid} {line}")
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a process or a thread of its own."""
    request.getfixturevalue("server") if "store" in request.fixturenames else None
    threads, processes = set(threading.enumerate()), _children()
    yield
    wait_until(lambda: not set(threading.enumerate()) - threads, 5, "threads left behind")
    wait_until(lambda: not _children() - processes, 5, lambda: f"left: {_named(processes)}")
