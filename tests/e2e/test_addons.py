"""Add-ons as users install them: as in plain Scrapy, and a clear word where one is missing."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stats import told
from tests.e2e.terminal import items
from tests.e2e.test_others import pages
from tests.matrix import Installed, python_with
from tests.others.addons import ADDONS, PACKAGES, RELEASE, Addon
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence

__all__ = ["python_with"]

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]  # an environment is made first
_KEPT = re.compile(r"'((?:deltafetch|crawl_once)/\w+)': (\d+)")


@pytest.fixture
def user(python_with: Callable[..., Path], store: Store, tmp_path: Path) -> Installed:
    return Installed(python_with(RELEASE, *PACKAGES), tmp_path / "home", store.url)


@pytest.fixture
def site() -> Iterator[str]:
    with pages() as address:
        yield address


def kept(log: str) -> dict[str, str]:
    """What add-ons counted."""
    return dict(_KEPT.findall(log.rpartition("Dumping Scrapy stats:")[2]))


@pytest.mark.parametrize("addon", ADDONS, ids=lambda addon: addon.name)
def test_as_in_plain_scrapy(
    user: Installed, store: Store, tmp_path: Path, site: str, addon: Addon
) -> None:
    (tmp_path / "addon.py").write_text(addon.text(site))
    with user.serving(store, tmp_path):
        for number in range(1 + addon.twice):
            found = []
            for module, folder, feed in (
                ("scrapy", "plain", "local.jsonl"),
                ("vscrapy_magic.cli", "ours", "ours.jsonl"),
            ):
                words = ["runspider", "addon.py", "-O", f"{feed}:jsonlines"]
                if addon.folder:
                    words += ["-s", f"{addon.folder}={tmp_path / folder}"]
                log = user.log_of(tmp_path, module, *words)
                found.append((items(tmp_path / feed), told(log), kept(log)))
                assert ("on one worker" in log) == (addon.twice and folder == "ours"), log[-3000:]
            assert found[0] == found[1]
            assert found[0][0].total() == (0 if number else 40)
            assert bool(found[0][2]) == addon.twice


@pytest.mark.parametrize("addon", [a for a in ADDONS if a.twice], ids=lambda addon: addon.name)
def test_what_goes_with_the_process_is_said_before_and_after(
    user: Installed, store: Store, tmp_path: Path, site: str, addon: Addon
) -> None:
    (tmp_path / "addon.py").write_text(addon.text(site))
    with user.serving(store, tmp_path):
        for _ in range(2):
            log = user.log_of(
                tmp_path, "vscrapy_magic.cli", "runspider", "addon.py", "-O", "a.jsonl:jsonlines"
            )
            assert items(tmp_path / "a.jsonl").total() == 40
            assert f"{addon.folder}=/an/absolute/folder keeps it" in log
            assert re.search(r"WARNING: What is kept in \.scrapy/.* goes with this worker", log)


def test_a_worker_without_them_says_so(
    user: Installed, store: Store, tmp_path: Path, site: str
) -> None:
    for addon in ADDONS:
        (tmp_path / f"of_{addon.lacking}.py").write_text(addon.text(site))
    with Workers(store.url, "--name", "bare"):
        wait_until(lambda: len(Presence(store).workers()) == 1, 60, "a worker")
        for lacking in sorted({addon.lacking for addon in ADDONS}):
            ended = user.run(tmp_path, "runspider", f"of_{lacking}.py")
            assert ended.returncode == 1, ended.stderr[-3000:]
            line = rf"worker bare has no package {lacking}: pip install {lacking} there"
            assert (
                Counter(re.findall(rf"ERROR: ({line})$", ended.stderr, re.MULTILINE)).total() == 1
            )
            assert re.search(rf"failed.*{line}", ended.stderr), ended.stderr[-2000:]
