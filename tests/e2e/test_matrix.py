"""Every supported Scrapy: items and stats of a crawl are those of the same Scrapy by itself."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.stats import told
from tests.e2e.terminal import items
from tests.matrix import RELEASES, Installed, python_with
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store

__all__ = ["python_with"]

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]  # an environment is made first
SPIDERS = Path(__file__).parents[1] / "spiders"
SLOW_PAGES_MS = 50  # so that one worker has more ready work than it can start
WORKERS = 2
END_S = 10.0


@pytest.mark.parametrize("release", RELEASES)
def test_same_as_local(
    python_with: Callable[[str], Path], store: Store, tmp_path: Path, release: str
) -> None:
    user = Installed(python_with(release), tmp_path / "home", store.url)
    version = user.log_of(
        tmp_path, "scrapy", "runspider", str(SPIDERS / "books.py"), "-a", "site=x"
    )
    assert f"Scrapy {release}." in version
    with DemoSite(delay_ms=SLOW_PAGES_MS) as site, user.serving(store, tmp_path):
        for spider in ("books", "shop_crawl", "account"):
            words = ("runspider", str(SPIDERS / f"{spider}.py"), "-a", f"site={site.url}")
            site.reset()
            stats = told(user.log_of(tmp_path, "scrapy", *words, "-O", "local.jsonl:jsonlines"))
            expected = items(tmp_path / "local.jsonl")
            assert expected.total() > 100
            for workers in ("1", "2"):
                site.reset()
                ours = ("--workers", workers, "-O", "ours.jsonl:jsonlines")
                log = user.log_of(tmp_path, "vscrapy_magic.cli", *words, *ours)
                assert items(tmp_path / "ours.jsonl") == expected, (spider, workers)
                assert told(log) == stats, (spider, workers)
                took_part = set(re.findall(r"^(local-\d) .*Spider opened$", log, re.MULTILINE))
                # One worker can start all that `account` has ready.
                assert len(took_part) == (1 if spider == "account" else int(workers))
