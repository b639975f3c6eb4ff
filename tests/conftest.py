"""Fixtures of all tests: a private Valkey, an open store on it, and hygiene that is always on."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hygiene
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer

OWN_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OWN_FOLDER] = hygiene.own_folder()


def pytest_unconfigure(config: pytest.Config) -> None:
    hygiene.remove_folder(config.stash[OWN_FOLDER])


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A server of this test process alone; nothing of it is written to disk."""
    folder = Path(tempfile.mkdtemp(prefix="vs-"))
    try:
        with EmbeddedServer(folder, persist=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(server: EmbeddedServer) -> Iterator[Store]:
    """An open store on an empty server; what a test leaves there must be accounted for."""
    with Store.connect(server.url) as opened:
        opened.client.flushall()
        yield opened
        left = hygiene.unaccounted_keys(opened)
        assert not left, "keys left behind:\n" + "\n".join(left)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """What fixtures of a module, a package or the session have made ends with them."""
    folder = request.config.stash[OWN_FOLDER]
    before = hygiene.look(folder)
    yield
    left = hygiene.settle(before, folder)
    assert not left, "left at the end of all tests:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves anything that is not accounted for in `tests/hygiene.py`."""
    request.getfixturevalue("server") if "store" in request.fixturenames else None
    folder = request.config.stash[OWN_FOLDER]
    before = hygiene.look(folder)
    yield
    left = hygiene.settle(before, folder)
    assert not left, "left behind:\n" + "\n".join(left)
