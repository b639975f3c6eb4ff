"""A crawl as its user holds it: while it runs, after its end, and when its server is gone."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sender.spiders import Pages, Writer
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.errors import ConfigError, StateError
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.follow import QUIET_S
from vscrapy_magic.sender.kept import open_kept
from vscrapy_magic.sender.session import Session
from vscrapy_magic.store import files as files_module
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.states: list[CrawlState] = []
        self.ends: list[CrawlView] = []

    def lines(self, lines: Sequence[LogLine]) -> None:
        self.texts += [line.text for line in lines]

    def view(self, view: CrawlView) -> None:
        self.states.append(view.state)

    def ended(self, view: CrawlView) -> None:
        self.ends.append(view)


@pytest.fixture
def finished(session: Session, crew: Workers) -> Crawl:
    crawl = session.crawl(Pages)
    crawl.wait(30)
    return crawl


def test_listeners_hear_all_and_late_ones_how_it_ended(session: Session, crew: Workers) -> None:
    crawl, early, late = session.crawl(Pages), Ear(), Ear()
    crawl.listen(early)
    assert crawl.wait(30).over
    wait_until(lambda: early.ends, 5, "the end")
    assert early.states[-1] is CrawlState.FINISHED
    assert any("Spider opened" in text for text in early.texts)
    crawl.listen(late)
    assert (late.states, late.ends) == ([CrawlState.FINISHED], [crawl.view])
    assert late.texts == []
    assert len(early.ends) == 1


def test_logs_are_filtered_by_worker_level_and_pattern(finished: Crawl) -> None:
    (worker,) = finished.workers
    lines = finished.logs()
    assert lines == finished.logs(worker=worker)
    assert finished.logs(worker="w-9") == []
    assert {line.level for line in finished.logs(level="INFO")} == {logging.INFO}
    assert finished.logs(level=logging.WARNING) == []
    found = finished.logs(pattern=r"Crawled \(\d+\)", last=2)
    assert [bool(re.search(r"Crawled \(200\)", line.text)) for line in found] == [True, True]
    with pytest.raises(ConfigError, match="'LOUD' is no log level; there are DEBUG, INFO"):
        finished.logs(level="LOUD")
    with pytest.raises(ConfigError, match=r"'\(' is no regular expression"):
        finished.logs(pattern="(")


def test_waiting_ends_with_its_time(session: Session) -> None:
    crawl = session.crawl(Pages)
    assert crawl.wait(0.05).state is CrawlState.QUEUED
    assert not crawl.is_over
    assert crawl.finish_reason == ""
    assert repr(crawl).startswith(f"<Crawl {crawl.id} pages queued: 0 items, 0 pages")


def test_stopping_twice_changes_nothing(session: Session, crew: Workers) -> None:
    crawl = session.crawl(Pages, keep_open=True)
    wait_until(lambda: len(crawl.items) == 5, 30, "items")
    crawl.stop()
    assert crawl.wait(20).state is CrawlState.STOPPED
    assert crawl.finish_reason == "shutdown"
    assert crawl.stop() is CrawlState.STOPPED
    assert crawl.stop(now=True) is CrawlState.STOPPED
    assert crawl.finish_reason == "shutdown"
    with pytest.raises(StateError, match="stopped"):
        crawl.set(LOG_LEVEL="DEBUG")


def test_without_pandas_one_line_says_what_to_do(
    finished: Crawl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError) as caught:
        finished.to_pandas()
    assert str(caught.value) == (
        "pandas is not installed here: `pip install pandas`, or use list(crawl.items)"
    )


def test_stats_and_what_it_brought_outlive_the_server(session: Session, finished: Crawl) -> None:
    assert finished.stats["item_scraped_count"] == 5
    assert finished.stats["elapsed_time_seconds"] >= 0
    assert repr(finished).startswith(f"<Crawl {finished.id} pages finished: 5 items, 5 pages, 0 f")
    session.close()
    assert finished.stats["item_scraped_count"] == 5
    kept = open_kept(finished.id)
    assert kept is not None
    try:
        assert kept.stats == finished.stats
        assert len(kept.items) == 5
        assert kept.workers == finished.workers
    finally:
        kept.close()


# Files that the spider wrote.


def test_files_that_the_spider_wrote_are_here_when_it_is_over(
    session: Session, crew: Workers
) -> None:
    crawl = session.crawl(Writer, args={"count": 4})
    assert crawl.wait(30).state is CrawlState.FINISHED
    found = {name.partition("/")[2]: path.read_text() for name, path in crawl.files.items()}
    assert found == {f"pages/{'odd' if n % 2 else 'even'}/{n}.txt": str(n) for n in range(4)}
    assert {name.partition("/")[0] for name in crawl.files} <= {"w-1", "w-2"}
    session.close()
    kept = open_kept(crawl.id)
    assert kept is not None
    assert list(kept.files) == list(crawl.files)
    kept.close()


def test_the_end_waits_for_the_files_of_a_process_that_is_slow_to_go(
    session: Session, crew: Workers
) -> None:
    crawl = session.crawl(Lingerer, args={"count": 1})
    assert crawl.wait(30).state is CrawlState.FINISHED
    assert [Path(name).name for name in crawl.files] == ["0.txt"]


def test_a_large_file_comes_whole_and_what_is_too_large_is_told(
    session: Session, crew: Workers
) -> None:
    megabytes = files_module.FILE_BYTES_MAX >> 20
    times = (megabytes * 2**20) // 2 + 1  # "10" is above the bound, "5" below
    crawl = session.crawl(Writer, args={"count": 11, "times": times}, workers=1)
    assert crawl.wait(60).state is CrawlState.FINISHED
    sizes = {Path(name).name: path.stat().st_size for name, path in crawl.files.items()}
    assert "10.txt" not in sizes
    assert set(sizes.values()) == {times}
    assert len(sizes) == files_module.FILES_BYTES_MAX // times
    (line,) = crawl.logs(pattern="files of the spider were not sent")
    assert line.text.startswith(f"{11 - len(sizes)} files of the spider were not sent (at most 200")
    assert line.level == logging.WARNING


def test_files_of_a_child_that_was_killed_come_too(session: Session, crew: Workers) -> None:
    crawl = session.crawl(Writer, args={"count": 3}, keep_open=True)
    wait_until(lambda: len(crawl.items) == 3, 30, "items")
    starts = r"a child starts \(process"
    wait_until(lambda: crawl.logs(pattern=starts), 10, "the line of the worker")
    (started,) = crawl.logs(pattern=starts)
    os.kill(int(started.text.rpartition(" ")[2].rstrip(")")), signal.SIGKILL)
    wait_until(lambda: len(crawl.logs(pattern="a child starts")) == 2, 20, "another child")
    crawl.stop()
    crawl.wait(20)
    assert {Path(name).name for name in crawl.files} == {"0.txt", "1.txt", "2.txt"}


def test_the_end_does_not_wait_for_ever_for_files_of_a_worker_that_died(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscrapy_magic.sender.follow.FILES_WITHIN_S", 1.0)
    crawl = session.crawl(Pages)
    files_module.Files(session.store, crawl.id).begin(files_module.MemberToken("w-9.aaa"))
    crawl.stop(now=True)
    assert crawl.wait(0.9).over
    assert not crawl.is_over
    crawl.wait(5)
    assert crawl.is_over


def test_values_of_the_environment_are_in_no_line(
    session: Session, crew: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vscrapy_magic.sender.classes import class_order, class_source
    from vscrapy_magic.sender.options import CrawlOptions

    monkeypatch.setenv("SECRET_TOKEN", "open-sesame")
    options = CrawlOptions(env=("SECRET_TOKEN",))
    crawl = session.place(class_order(options, Teller, *class_source(Teller)))
    crawl.wait(30)
    texts = [line.text for line in crawl.logs(pattern="says")]
    assert sorted(texts) == ["log says ***", "stderr says ***", "stdout says ***"]
    assert "open-sesame" not in "".join(line.text for line in crawl.logs())
    assert [item["length"] for item in crawl.items] == [11]


class Lingerer(Writer):
    """Leaves a program that holds its output for longer than the silence before an end is told."""

    name = "lingerer"

    def closed(self, reason: str) -> None:
        subprocess.Popen(["sleep", str(4 * QUIET_S)], start_new_session=True)


class Teller(Pages):
    """Tells a secret wherever lines come from."""

    name = "teller"
    count = "1"

    def parse(self, response):  # type: ignore[no-untyped-def]
        secret = os.environ["SECRET_TOKEN"]
        self.logger.info("log says %s", secret)
        sys.stdout.write(f"stdout says {secret}\n")
        sys.stderr.write(f"stderr says {secret}\n")
        yield {"length": len(secret)}
