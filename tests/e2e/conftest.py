"""Fixtures of tests whose senders have a spider in a file, beside a server of the test's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.crew import short_folder


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Of the server; also the module's `SPIDER` is written as `pages.py`, for senders."""
    (tmp_path / "pages.py").write_text(request.module.SPIDER)
    path = short_folder()
    yield path
    shutil.rmtree(path)
