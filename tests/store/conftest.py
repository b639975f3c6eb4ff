"""Fixtures of the store's tests."""

import shutil
from collections.abc import Iterator

import pytest

from tests.servers import OwnServer, needs_redis
from tests.worker.crew import short_folder
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import WorkerRecord


@pytest.fixture
def worker_record() -> WorkerRecord:
    return WorkerRecord(name=WorkerName("w1"), host="h", pid=3, slots=8)


@pytest.fixture(params=["valkey", pytest.param("redis", marks=needs_redis)])
def on(request: pytest.FixtureRequest, store: Store) -> Iterator[Store]:
    """A store on each kind of server."""
    if request.param == "valkey":
        yield store
        return
    folder = short_folder()
    with OwnServer(folder) as server, Store.connect(server.unix_url) as opened:
        yield opened
    shutil.rmtree(folder)
