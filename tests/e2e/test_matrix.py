"""Every supported Scrapy: items and stats of a crawl are those of the same Scrapy by itself."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.stats import told
from tests.e2e.terminal import items
from tests.foreign import OLDEST, REPOSITORY, foreign_python, other_python
from tests.matrix import RELEASES, Installed, python_with
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence

__all__ = ["foreign_python", "python_with"]

pytestmark = pytest.mark.timeout(600)  # an environment is made first
PYTHONS = ("3.12", "3.13")
SPIDERS = Path(__file__).parents[1] / "spiders"
SLOW_PAGES_MS = 50  # so that one worker has more ready work than it can start


def same_as_local(user: Installed, store: Store, folder: Path, release: str) -> None:
    """Three spiders, by the Scrapy of the user's environment alone, and on its workers."""
    version = user.log_of(folder, "scrapy", "runspider", str(SPIDERS / "books.py"), "-a", "site=x")
    assert f"Scrapy {release}." in version
    with DemoSite(delay_ms=SLOW_PAGES_MS) as site, user.serving(store, folder):
        for spider in ("books", "shop_crawl", "account"):
            words = ("runspider", str(SPIDERS / f"{spider}.py"), "-a", f"site={site.url}")
            site.reset()
            stats = told(user.log_of(folder, "scrapy", *words, "-O", "local.jsonl:jsonlines"))
            expected = items(folder / "local.jsonl")
            assert expected.total() > 100
            for workers in ("1", "2"):
                site.reset()
                ours = ("--workers", workers, "-O", "ours.jsonl:jsonlines")
                log = user.log_of(folder, "vscrapy_magic.cli", *words, *ours)
                assert items(folder / "ours.jsonl") == expected, (spider, workers)
                assert told(log) == stats, (spider, workers)
                took_part = set(re.findall(r"^(local-\d) .*Spider opened$", log, re.MULTILINE))
                # One worker can start all that `account` has ready.
                assert len(took_part) == (1 if spider == "account" else int(workers))


def test_the_oldest_is_the_same_as_local(
    foreign_python: Path, store: Store, tmp_path: Path
) -> None:
    user = Installed(foreign_python, tmp_path / "home", store.url)
    same_as_local(user, store, tmp_path, OLDEST)


@pytest.mark.matrix
@pytest.mark.parametrize("release", RELEASES)
def test_same_as_local(
    python_with: Callable[..., Path], store: Store, tmp_path: Path, release: str
) -> None:
    user = Installed(python_with(release), tmp_path / "home", store.url)
    same_as_local(user, store, tmp_path, release)


@pytest.mark.matrix
@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[-1]])
def test_a_sender_and_workers_of_different_versions(
    python_with: Callable[..., Path], store: Store, tmp_path: Path, version: str, release: str
) -> None:
    """The newest Scrapy on this Python at one end, another of both at the other, either way."""
    found = other_python(version)
    if found is None:
        pytest.skip(f"there is no other Python {version} on this machine")
    there = Installed(python_with(release, interpreter=found[0]), tmp_path / "there", store.url)
    here = Installed(Path(sys.executable), tmp_path / "here", store.url)
    here.environment["PYTHONPATH"] = str(REPOSITORY)
    words = ("runspider", str(SPIDERS / "books.py"), "-O", "ours.jsonl:jsonlines")
    with DemoSite(delay_ms=SLOW_PAGES_MS) as site:
        here.log_of(tmp_path, "scrapy", *words, "-a", f"site={site.url}")
        expected = items(tmp_path / "ours.jsonl")
        assert expected.total() > 100
        for sender, other in ((here, there), (there, here)):
            with other.serving(store, tmp_path):
                site.reset()
                log = sender.log_of(tmp_path, "vscrapy_magic.cli", *words, "-a", f"site={site.url}")
                assert items(tmp_path / "ours.jsonl") == expected
                # Both ends were what they should be.
                (version_there,) = {view.record.scrapy for view in Presence(store).workers()}
                wanted = release if other is there else RELEASES[-1]
                assert version_there.startswith(f"{wanted}.")
                assert "Spider closed (finished)" in log
