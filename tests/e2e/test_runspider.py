"""`vscrapy runspider FILE` as a user types it: as `scrapy runspider`, on 1 and 2 workers."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.terminal import Terminal, items, local_items, serve
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.messages import CrawlState

SPIDERS = Path(__file__).parents[1] / "spiders"
SLOW_PAGES_MS = 100  # so that one worker has more ready work than it can start
CHILD = "vscrapy_magic.runtime"


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite(delay_ms=SLOW_PAGES_MS) as running:
        yield running


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home", store.url)


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    with serve(store) as workers:
        yield workers


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.matrix), "2"])
@pytest.mark.parametrize("spider", ["books", "shop_crawl", "account"])
def test_same_items_as_local(
    site: DemoSite, terminal: Terminal, crew: Workers, tmp_path: Path, spider: str, workers: str
) -> None:
    path = SPIDERS / f"{spider}.py"
    expected = local_items(terminal, tmp_path, path, site)
    ended = terminal.run(
        tmp_path,
        *("runspider", str(path), "-a", f"site={site.url}", "--workers", workers),
        *("-O", "ours.jsonl:jsonlines"),
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert items(tmp_path / "ours.jsonl") == expected
    assert re.search(rf"finished: {expected.total()} items", ended.stderr)
    took_part = set(re.findall(r"^(local-\d) .*Spider opened$", ended.stderr, re.MULTILINE))
    # One worker can start all that `account` has ready: a second one would find nothing to do.
    assert len(took_part) == (1 if spider == "account" else int(workers))


def test_stats_are_dumped_once_for_the_whole_crawl(
    site: DemoSite, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    words = ("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}", "-L", "INFO")
    ended = terminal.run(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stderr.count("Dumping Scrapy stats:") == 1
    assert "'item_scraped_count': 209" in ended.stderr
    assert "Dumping" not in terminal.run(tmp_path, *words, "-s", "STATS_DUMP=False").stderr


def _children(process: psutil.Process | int) -> list[int]:
    """Processes that run spiders, among the descendants of workers."""
    family = psutil.Process(process if isinstance(process, int) else process.pid)
    return [each.pid for each in family.children(recursive=True) if not each.children()]


def test_an_interrupt_stops_and_keeps_what_came(
    terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    with DemoSite(delay_ms=200) as site:
        with terminal.start(
            tmp_path,
            *("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}"),
            *("-O", "ours.jsonl:jsonlines", "-L", "INFO"),
        ) as process:
            wait_until(lambda: site.stats()["requests"] > 20, 20, "pages")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors[-3000:]
        assert "after what is in flight; once more kills it" in errors
        assert re.search(r"crawl \w+ books stopped \(shutdown\): \d+ items", errors)
        kept = items(tmp_path / "ours.jsonl")
        assert 0 < kept.total() < 209
        assert max(kept.values()) == 1


def test_a_second_interrupt_kills(terminal: Terminal, crew: Workers, tmp_path: Path) -> None:
    with DemoSite(delay_ms=5000) as site:
        with terminal.start(
            tmp_path, "runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}"
        ) as process:
            wait_until(lambda: site.stats()["requests"] > 0, 20, "a request")
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = ""
            while "once more kills" not in said:
                said = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=15)
        assert process.returncode == 130
        assert "killing crawl" in errors
        assert "stopped (killed)" in errors


def test_a_sender_that_is_killed_has_its_crawl_cancelled(
    store: Store, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    with DemoSite(delay_ms=1000) as site:
        _kill_sender(store, site, terminal, tmp_path)


def _kill_sender(store: Store, site: DemoSite, terminal: Terminal, folder: Path) -> None:
    process = terminal.start(
        folder, "runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}", "--nolog"
    )
    wait_until(lambda: site.stats()["requests"] > 5, 20, "pages")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    (view,) = Crawls(store).list_all()
    wait_until(
        lambda: Crawls(store).view(view.crawl_id).state is CrawlState.CANCELLED, 15, "cancelled"
    )
    wait_until(lambda: not any(p.is_running() for p in family), 15, f"end of {family}")


def test_a_detached_crawl_outlives_its_sender_and_is_fetched_later(
    store: Store, site: DemoSite, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    words = ("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}", "-L", "INFO")
    begun = terminal.run(tmp_path, *words, "--detach")
    assert begun.returncode == 0, begun.stderr
    found = re.search(r"crawl (\w+) books goes on by itself", begun.stderr)
    assert found, begun.stderr
    followed = terminal.run(tmp_path, "logs", found[1][:5], "-f")
    assert followed.returncode == 0
    assert "Spider closed (finished)" in followed.stdout
    fetched = terminal.run(tmp_path, "items", found[1])
    assert len(fetched.stdout.splitlines()) == 209
    store.client.flushall()  # what was fetched is kept here
    again = terminal.run(tmp_path, "items", found[1], "-n", "3")
    assert again.stdout.splitlines() == fetched.stdout.splitlines()[-3:]
    refused = terminal.run(tmp_path, *words, "--detach", "-o", "-:jsonlines")
    assert refused.returncode == 2
    assert "a detached crawl has nobody here to print its items" in refused.stderr


FAILING = """
import os, scrapy
class Failing(scrapy.Spider):
    name = "failing"
    start_urls = ["data:,1", "data:,2"]
    def parse(self, response):
        print("token is", os.environ["SHOP_TOKEN"])
        with open("names.txt") as file:
            names = file.read()
        raise ValueError(names)
"""


def test_failures_environment_files_and_logfile(
    terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "names.txt").write_text("Ada")
    terminal.environment["SHOP_TOKEN"] = "sesame-open"
    ended = terminal.run(
        tmp_path,
        *("runspider", "failing.py", "--file", "names.txt", "--env", "SHOP_TOKEN"),
        *("--logfile", "log.txt", "--pidfile", "pid", "-s", "DOWNLOAD_DLEAY=1"),
    )
    assert ended.returncode == 0, ended.stderr
    assert "did you mean DOWNLOAD_DELAY?" in ended.stderr
    assert "Spider opened" not in ended.stderr
    log = (tmp_path / "log.txt").read_text()
    assert "token is ***" in log
    assert "sesame-open" not in log + ended.stderr
    assert "Spider opened" in log
    assert (tmp_path / "pid").read_text().strip().isdigit()
    found = re.search(r"`vscrapy errors (\w+)` shows the failures", ended.stderr)
    assert found, ended.stderr
    shown = terminal.run(tmp_path, "errors", found[1]).stdout
    assert "ValueError: Ada" in shown
    assert "2 times" in shown


def test_no_log_means_no_word_unless_something_fails(
    site: DemoSite, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    words = ("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}", "--nolog")
    ended = terminal.run(tmp_path, *words, "-o", "-:jsonlines")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 209


def test_a_worker_and_a_child_killed_lose_and_repeat_nothing(
    store: Store, terminal: Terminal, tmp_path: Path
) -> None:
    path = SPIDERS / "books.py"
    with (
        DemoSite(delay_ms=100) as site,
        serve(store, 1) as first,
        Workers(store.url, "--name", "other") as second,
    ):
        expected = local_items(terminal, tmp_path, path, site)
        with terminal.start(
            tmp_path,
            *("runspider", str(path), "-a", f"site={site.url}", "--workers", "2"),
            *("-O", "ours.jsonl:jsonlines", "-L", "INFO"),
        ) as process:
            crawls = Crawls(store)
            wait_until(lambda: [v for v in crawls.wanted() if len(v.members) == 2], 20, "members")
            wait_until(lambda: site.stats()["requests"] > 40, 20, "pages")
            os.kill(_children(first.process.pid)[0], signal.SIGKILL)
            wait_until(lambda: site.stats()["requests"] > 80, 20, "more pages")
            second.process.kill()
            _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors[-3000:]
    assert items(tmp_path / "ours.jsonl") == expected


BROKEN = """
import scrapy
raise RuntimeError("no such thing")
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runspider", "nothere.py"], "nothere.py: No such file"),
        (["runspider", "bad.py"], "bad.py, line 1: "),
        (["runspider", "broken.py"], "broken.py, line 3: RuntimeError: no such thing"),
        (["runspider", "good.py", "-a", "x"], "-a NAME=VALUE"),
        (["runspider", "good.py", "-s", "CLOSESPIDER_ITEMCOUNT=x"], "a number is needed"),
        (["runspider", "good.py", "--env", "NOT_SET_HERE"], "no such environment variable"),
        (["runspider", "good.py", "--logfile", "no/such/folder"], "cannot be written"),
        (["runspider", "good.py", "--redis", "redis://127.0.0.1:1"], "does not answer"),
    ],
)
def test_mistakes_are_one_clear_line(
    terminal: Terminal, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "good.py").write_text(FAILING)
    ended = terminal.run(tmp_path, *words)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
