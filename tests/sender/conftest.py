"""Fixtures of tests with a session: a spool of the test's own, and workers as users start them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.connection import Store


@pytest.fixture
def own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "spool"
    monkeypatch.setenv(SPOOL_VARIABLE, str(folder))
    return folder


@pytest.fixture
def session(store: Store, own_spool: Path) -> Iterator[Session]:
    with Session.connect(store.url, kind="python") as opened:
        yield opened


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    """Two workers, `w-1` and `w-2`."""
    with Workers(store.url, "-n", "2", "--name", "w") as running:
        wait_until(lambda: len(workers(store)) == 2, 30, "two workers")
        yield running
