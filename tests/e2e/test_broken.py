"""The corpus: each of its failures comes again here, with the same exception at the same line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.broken import COUNT, LOST, SOURCE
from tests.notebook.shell import fresh_shell, run
from tests.waiting import wait_until
from tests.worker.crew import Workers, workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.notebook.extension import unload
from vscrapy_magic.runtime.guest import guest
from vscrapy_magic.runtime.replay import NotReplayableError, rerun
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.store.connection import Store

pytestmark = pytest.mark.timeout(300)
MIN = 30  # of a corpus that says something


@pytest.fixture(scope="module")
def crawl(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawl]:
    """The corpus, crawled by two workers for a notebook."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Store.connect(server.url) as store,
        DemoSite() as site,
        fresh_shell() as shell,
        Workers(store.url, "-n", "2", "--name", "w"),
    ):
        store.client.flushall()
        patch.setenv("VSCRAPY_REDIS_URL", store.url)
        patch.setenv("VSCRAPY_SPOOL", str(tmp_path_factory.mktemp("spool")))
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        wait_until(lambda: len(workers(store)) == 2, 30, "workers")
        run(shell, "%load_ext vscrapy_magic")
        made = run(shell, f"%%vcrawl broken -a site={site.url} --workers 2{SOURCE}").result
        yield made
        unload(shell)


def test_failures_come_again_here_at_the_same_line(crawl: Crawl, tmp_path: Path) -> None:
    records = [failure.record for failure in crawl.failures]
    assert len(records) == COUNT, sorted(record.callback for record in records)
    bundle, is_own = crawl.source(1)
    assert is_own
    again, differs = [], []
    with guest(bundle, crawl.view.spec) as loaded:
        for record in records:
            if (record.callback, record.type) in LOST:
                continue
            try:
                done = rerun(loaded, record)
            except NotReplayableError as exc:
                differs.append((record.callback, record.type, str(exc)))
                continue
            if done.is_as(record):
                again.append(record.callback)
            else:
                differs.append((record.callback, f"{record.type} at {record.place}", str(done)))
    assert not differs, "\n".join(map(str, differs))
    assert len(again) == COUNT - len(LOST) >= MIN


def test_most_of_them_are_explained(crawl: Crawl) -> None:
    from vscrapy_magic.sender.advice import advice

    silent = [r.callback for r in (f.record for f in crawl.failures) if not advice(r)]
    assert len(silent) < COUNT / 2, silent
