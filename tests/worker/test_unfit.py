"""Workers that lack a package: one clear line each, and the crawl is left to those that have it."""

import logging
import os
import re
from pathlib import Path

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

ONLY_THERE = "class Pipe:\n    def process_item(self, item):\n        return item\n"
LACKS = r"worker bare-\d has no package only_there: pip install only_there there"
COUNT = {"count": "40", "delay": "0.02"}
# How a spider may need a package: the code before its class, and its settings.
NEEDS = {
    "import": ("import only_there", {}),
    "import of a submodule": ("from only_there.part import Thing", {}),
    "pipeline": ("", {"ITEM_PIPELINES": {"only_there.Pipe": 1}}),
    "addon": ("", {"ADDONS": {"only_there.Addon": 1}}),
    "download handler": ("", {"DOWNLOAD_HANDLERS": {"https": "only_there.Handler"}}),
    "pipeline that needs another": ("", {"ITEM_PIPELINES": {"needs_more.Pipe": 1}}),
    "class": ("", {"DUPEFILTER_CLASS": "only_there.Filter"}),
}


def spider(head: str, settings: object = None) -> str:
    own = f"    custom_settings = {settings!r}\n" if settings else ""
    return f"{head}\n{PAGES.replace('    name =', own + '    name =')}"


def test_a_crawl_that_no_worker_can_run_fails_with_one_line_of_each(
    store: Store, tmp_path: Path
) -> None:
    # Scrapy would import it after it has installed a reactor, and so do we.
    more = "from twisted.internet import reactor\nimport only_there\n"
    (tmp_path / "needs_more.py").write_text(more)
    with Workers(store.url, "-n", "2", "--name", "bare", PYTHONPATH=_path(tmp_path)):
        wait_until(lambda: len(workers(store)) == 2, 30, "workers")
        crawls = {
            need: Ordered(store, spider(head, settings), args=COUNT)
            for need, (head, settings) in NEEDS.items()
        }
        for need, crawl in crawls.items():
            view = crawl.wait()
            assert view.state is CrawlState.FAILED, need
            assert re.fullmatch(rf"{LACKS} \(none of the 2 workers can run it\)", view.why), (
                view.why
            )
            errors = [line for line in crawl.lines() if line.level >= logging.ERROR]
            assert all(re.fullmatch(LACKS, line.text) for line in errors), need
            assert {line.worker for line in errors} == {"bare-1", "bare-2"}
            assert len(errors) == 2


def test_a_worker_without_the_package_leaves_the_crawl_to_one_that_has_it(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "only_there.py").write_text(ONLY_THERE)
    with Workers(store.url, "--name", "bare"):
        wait_until(lambda: len(workers(store)) == 1, 30, "a worker")
        with Workers(store.url, "--name", "full", PYTHONPATH=_path(tmp_path)):
            wait_until(lambda: len(workers(store)) == 2, 30, "workers")
            source = spider("", NEEDS["pipeline"][1])
            crawl = Ordered(store, source, args=COUNT)
            view = crawl.wait()
    assert view.state is CrawlState.FINISHED, crawl.log()
    assert crawl.numbers() == dict.fromkeys(range(40), 1)
    errors = [(line.worker, line.text) for line in crawl.lines() if line.level >= logging.ERROR]
    line = "worker bare has no package only_there: pip install only_there there"
    assert errors == [("bare", line)]


def test_what_fails_on_one_worker_only_leaves_the_crawl_to_the_others(store: Store) -> None:
    fails_there = 'if os.environ.get("BROKEN"):\n    raise OSError("no disk here")\n'
    with Workers(store.url, "--name", "well"):
        wait_until(lambda: len(workers(store)) == 1, 30, "a worker")
        crawl = Ordered(store, fails_there + PAGES, args={"count": "300", "delay": "0.02"})
        wait_until(lambda: crawl.view().totals.pages, 30, "pages")
        with Workers(store.url, "--name", "ill", BROKEN="1") as ill:
            wait_until(lambda: "no disk here" in crawl.log(), 30, "its child")
            wait_until(lambda: not crawl.view().over and ill.ready(), 30, "a crawl that goes on")
            view = crawl.wait(60)
    assert view.state is CrawlState.FINISHED, crawl.log()
    assert crawl.numbers() == dict.fromkeys(range(300), 1)
    said = "goes on without this worker: it cannot run on worker ill: OSError: no disk here"
    assert said in crawl.log()
    assert len([line for line in crawl.lines() if line.text.startswith("a child starts")]) == 2


def test_what_a_spider_itself_lacks_is_no_matter_of_the_worker(store: Store) -> None:
    with Workers(store.url, "--name", "bare"):
        crawl = Ordered(store, "from spider import nothing\n" + PAGES, args=COUNT)
        view = crawl.wait()
    assert view.state is CrawlState.FAILED
    assert "pip install" not in view.why
    assert "cannot import name 'nothing'" in view.why


def test_an_older_python_is_named(store: Store) -> None:
    with Workers(store.url, "--name", "old"):
        crawl = Ordered(store, "from json import not_yet\n" + PAGES, args=COUNT)
        view = crawl.wait()
    assert view.state is CrawlState.FAILED
    assert view.why.startswith("worker old runs Python 3."), view.why
    assert "cannot import name 'not_yet' from 'json'" in view.why


def _path(folder: Path) -> str:
    """Of a worker that finds modules of a folder, and this package where the tests find it."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
