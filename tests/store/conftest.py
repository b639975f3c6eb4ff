"""Fixtures of the store's tests."""

import pytest

from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.messages import WorkerRecord


@pytest.fixture
def worker_record() -> WorkerRecord:
    return WorkerRecord(name=WorkerName("w1"), host="h", pid=3, slots=8)
