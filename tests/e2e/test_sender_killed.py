"""A sender is killed while items stream: who attaches gets each item once, and the feeds too."""

import json
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.e2e.terminal import Terminal, serve
from tests.kernels import kernel
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.failpoints import FAIL_VARIABLE
from vscrapy_magic.sender.pages import PageLog
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.feed_journal import read_journal
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.views import CrawlView

COUNT = 150
SPIDER = f"""
import time
import scrapy

class Pages(scrapy.Spider):
    name = "pages"
    custom_settings = {{"LOG_LEVEL": "INFO"}}
    async def start(self):
        for n in range({COUNT}):
            yield scrapy.Request(f"data:text/plain,{{n}}", meta={{"download_slot": "pages"}})
    def parse(self, response):
        time.sleep(0.01)
        yield {{"n": int(response.text)}}
"""
# Measured here: an item every 10 ms, and a look of the sender every 100.
DELAY_S = 0.06  # so that each of several collectors finds something new
STREAMS_S = (0.05, 0.8)  # after the first item
SEED = 20261125


@pytest.fixture(scope="module")
def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Terminal:
    (tmp_path / "pages.py").write_text(SPIDER)
    return Terminal(tmp_path / "home", store.url)


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    with serve(store) as workers:
        yield workers


def the_crawl(store: Store) -> CrawlView:
    (view,) = Crawls(store).list_all()
    return view


def journal_of(terminal: Terminal, crawl_id: str) -> Path:
    return terminal.home / "cache" / "vscrapy" / "spool" / crawl_id / "feeds" / "journal"


def read(folder: Path) -> list[Counter[int]]:
    """What the two feeds hold; fails when one is no valid file."""
    listed = [item["n"] for item in json.loads((folder / "out.json").read_text())]
    tree = ElementTree.parse(folder / "out.xml")
    return [Counter(listed), Counter(int(item.findtext("n") or -1) for item in tree.getroot())]


def spooled(terminal: Terminal, folder: Path, crawl_id: str) -> Counter[int]:
    lines = terminal.run(folder, "items", crawl_id).stdout.splitlines()
    return Counter(json.loads(line)["n"] for line in lines)


def begin(terminal: Terminal, folder: Path, *words: str) -> "subprocess.Popen[str]":
    feeds = ("-O", "out.json", "-O", "out.xml")
    return terminal.start(folder, "runspider", "pages.py", "--nolog", *feeds, *words)


@pytest.mark.parametrize(
    "point",
    [
        "sender_before_spool:2",
        "spool_mid_write:2",
        "sender_after_spool_before_ack:2",
        "sender_after_ack:2",
        "at any moment",
    ],
)
def test_a_terminal_that_is_killed_loses_and_repeats_nothing(
    store: Store,
    terminal: Terminal,
    crew: Workers,
    tmp_path: Path,
    rng: random.Random,
    point: str,
) -> None:
    at_random = point == "at any moment"
    if not at_random:
        terminal.environment[FAIL_VARIABLE] = point
    with begin(terminal, tmp_path, "--record") as sender:
        if at_random:
            wait_until(lambda: any(v.totals.items for v in Crawls(store).list_all()), 20, "items")
            time.sleep(rng.uniform(*STREAMS_S))
            sender.kill()
        assert sender.wait(20) == -signal.SIGKILL
    terminal.environment.pop(FAIL_VARIABLE, None)
    wait_until(lambda: the_crawl(store).over, 10, "the end")
    crawl_id = the_crawl(store).crawl_id
    attached = terminal.run(tmp_path, "attach", crawl_id, "--nolog")
    view = the_crawl(store)
    assert view.state is CrawlState.CANCELLED, attached.stderr
    assert f"crawl {crawl_id} pages cancelled (its sender is gone)" in attached.stderr
    assert re.search(rf"Stored xml feed \({view.totals.items} items\) in: out.xml", attached.stderr)
    kept = spooled(terminal, tmp_path, crawl_id)
    assert kept.total() == view.totals.items > 0
    assert max(kept.values()) == 1
    assert read(tmp_path) == [kept, kept]
    journal = journal_of(terminal, crawl_id)
    assert read_journal(journal).ended is not None
    pages = PageLog(journal.parent.parent)
    pages.refresh()
    assert Counter(int(pages[n].url.partition(",")[2]) for n in range(len(pages))) == kept


def test_the_feeds_of_a_killed_sender_are_valid_before_anybody_attaches(
    store: Store, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    with begin(terminal, tmp_path) as sender:
        wait_until((tmp_path / "out.xml").exists, 20, "a feed")
        sender.kill()
        sender.wait(20)
    journal = journal_of(terminal, the_crawl(store).crawl_id)
    wait_until(lambda: read_journal(journal).ended, 10, "the end of the writer")
    listed, tree = read(tmp_path)
    assert listed == tree
    assert 0 < listed.total() == read_journal(journal).items
    assert max(listed.values()) == 1


def test_a_detached_crawl_is_collected_and_its_feeds_written_whoever_is_killed_meanwhile(
    store: Store, terminal: Terminal, crew: Workers, tmp_path: Path, rng: random.Random
) -> None:
    with begin(terminal, tmp_path, "--detach", "-s", f"DOWNLOAD_DELAY={DELAY_S}") as sender:
        assert sender.stderr is not None
        said = sender.stderr.read()
    crawl_id = the_crawl(store).crawl_id
    assert f"`vscrapy attach {crawl_id}`, typed on this machine, writes its feeds" in said
    for point in ("sender_after_spool_before_ack", "sender_after_ack"):
        terminal.environment[FAIL_VARIABLE] = point
        assert terminal.run(tmp_path, "attach", crawl_id).returncode == -signal.SIGKILL
    del terminal.environment[FAIL_VARIABLE]
    with terminal.start(tmp_path, "attach", crawl_id, "--nolog") as attached:
        journal = journal_of(terminal, crawl_id)
        wait_until(lambda: journal.exists() and read_journal(journal).items, 20, "items in a feed")
        time.sleep(rng.uniform(*STREAMS_S))
        attached.kill()
    ended = terminal.run(tmp_path, "attach", crawl_id, "--nolog")
    assert ended.returncode == 0, ended.stderr
    assert "(continued at item" in ended.stderr
    assert read(tmp_path) == 2 * [Counter(range(COUNT))]
    assert spooled(terminal, tmp_path, crawl_id) == Counter(range(COUNT))


def test_a_detached_crawl_is_collected_later_from_another_machine_into_a_feed(
    store: Store, terminal: Terminal, crew: Workers, tmp_path: Path
) -> None:
    with begin(terminal, tmp_path, "--detach") as sender:
        sender.communicate()
    wait_until(lambda: the_crawl(store).over, 30, "the end")
    crawl_id = the_crawl(store).crawl_id
    other = Terminal(tmp_path / "other", store.url)
    there = tmp_path / "there"
    there.mkdir()
    ended = other.run(there, "items", crawl_id, "-O", "out.json", "-O", "out.xml")
    assert ended.returncode == 0, ended.stderr
    assert f"vscrapy: Stored json feed ({COUNT} items) in: out.json" in ended.stderr
    assert read(there) == 2 * [Counter(range(COUNT))]
    assert not (tmp_path / "out.json").exists()
    assert spooled(other, there, crawl_id) == Counter(range(COUNT))
    # All is collected: here it is known, and said.
    here = terminal.run(tmp_path, "items", crawl_id)
    assert "are with the sender that collected them, on another machine" in here.stderr


def test_a_kernel_that_is_killed_and_the_next_one_attaches(
    store: Store, crew: Workers, tmp_path: Path
) -> None:
    environment: dict[str, Any] = {
        "VSCRAPY_REDIS_URL": store.url,
        "VSCRAPY_SPOOL": str(tmp_path / "spool"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    with kernel(tmp_path, environment) as doomed:
        doomed.send(f"%%vcrawl pages -O out.json -O out.xml\n{SPIDER}")
        wait_until((tmp_path / "out.xml").exists, 30, "a feed")
        doomed.kill()
    wait_until(lambda: the_crawl(store).over, 10, "the end")
    crawl_id = the_crawl(store).crawl_id
    with kernel(tmp_path, environment) as notebook:
        notebook.run(f"import vscrapy_magic as vs; found = vs.attach({crawl_id!r})")
        notebook.run("found.wait(20)")
        kept = Counter(notebook.value("[item['n'] for item in found.items]"))
        feeds = notebook.value("found.feeds")
    assert kept.total() == the_crawl(store).totals.items > 0
    assert max(kept.values()) == 1
    assert read(tmp_path) == [kept, kept]
    assert [line for line in feeds if line.startswith("Stored json feed (")]
