"""A site, what plain Scrapy gives on it, and a session with a spool of its own."""

from collections.abc import Iterator

import pytest

from tests.chaos.scene import Expected
from tests.sender.conftest import own_spool, session
from vscrapy_magic.demo.site import DemoSite

__all__ = ["own_spool", "session"]
PAGES = 60
DELAY_MS = 60


@pytest.fixture(scope="package")
def site() -> Iterator[DemoSite]:
    with DemoSite(pages=PAGES, delay_ms=DELAY_MS) as running:
        yield running


@pytest.fixture(scope="package")
def expected(site: DemoSite, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return Expected.of(site, tmp_path_factory.mktemp("local"))
