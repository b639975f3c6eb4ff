"""Every supported Scrapy: items and stats of a crawl are those of the same Scrapy by itself."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.stats import told
from tests.e2e.terminal import RUN_S, Terminal, items
from tests.matrix import RELEASES, python_with
from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.presence import Presence

__all__ = ["python_with"]

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]  # an environment is made first
SPIDERS = Path(__file__).parents[1] / "spiders"
SLOW_PAGES_MS = 50  # so that one worker has more ready work than it can start
WORKERS = 2
END_S = 10.0


class Installed(Terminal):
    """A user whose environment has this package installed, and a Scrapy of its own."""

    def __init__(self, python: Path, home: Path, url: str) -> None:
        super().__init__(home, url)
        self.python = str(python)
        self.environment.pop("PYTHONPATH", None)

    def log_of(self, folder: Path, module: str, *words: str) -> str:
        """What a module says that must succeed; nothing of this repository is on its path."""
        ended = subprocess.run(
            [self.python, "-m", module, *words, "-L", "INFO"],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_S,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stderr

    @contextmanager
    def serving(self, store: Store, folder: Path) -> Iterator[None]:
        """Two workers of this environment."""
        words = ("-m", "vscrapy_magic.worker", store.url, "-n", str(WORKERS), "--name", "local")
        with (
            (folder / "workers.log").open("w") as log,
            subprocess.Popen(
                [self.python, *words], cwd=folder, env=self.environment, stderr=log
            ) as process,
        ):
            try:
                wait_until(
                    lambda: len(Presence(store).workers()) == WORKERS or process.poll(),
                    *(60, "workers"),
                )
                assert process.poll() is None, Path(log.name).read_text()
                yield
            finally:
                family = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                process.wait(END_S)
                wait_until(lambda: not any(p.is_running() for p in family), END_S, "their end")


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
