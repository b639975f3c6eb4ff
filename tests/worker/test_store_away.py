"""The server is killed, restarted, emptied or frozen: workers go on, and say it once."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.worker.crew import HANGING, PAGES, Ordered, Workers, short_folder, workers
from vscrapy_magic.errors import StoreError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.server import EmbeddedServer
from vscrapy_magic.worker.output import SPOOL_LINES

AWAY, BACK = "trying again each second", "answers again"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = short_folder()
    yield path
    shutil.rmtree(path)


def counted(crew: Workers, text: str) -> int:
    return sum(text in line for line in crew.said)


def test_crawl_goes_on_after_a_killed_server_is_back(folder: Path) -> None:
    own = EmbeddedServer(folder)
    with own, Store.connect(own.url) as store, Workers(own.url, "-n", "2", "--name", "w") as crew:
        crawl = Ordered(store, PAGES, args={"count": "120", "delay": "0.05"})
        wait_until(crawl.items, 20, "items")
        own.kill()
        wait_until(lambda: counted(crew, AWAY), 10, "noticed")
        pids = [child.pid for child in crew.zygote().children()]
        own.start()
        wait_until(lambda: counted(crew, BACK), 15, "back")
        assert crawl.wait(60).state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys(range(120), 1)
        assert pids
        assert (counted(crew, AWAY), counted(crew, BACK)) == (1, 1), crew.text()


def test_workers_serve_a_server_that_came_back_empty(folder: Path) -> None:
    own = EmbeddedServer(folder, persist=False)
    with own, Store.connect(own.url) as store, Workers(own.url, "--name", "w") as crew:
        lost = Ordered(store, PAGES, args={"count": "300", "delay": "0.1"})
        wait_until(lost.items, 20, "items")
        (child,) = crew.zygote().children()
        own.kill()
        wait_until(lambda: counted(crew, AWAY), 10, "noticed")
        own.start()
        wait_until(lambda: "w" in _workers(store), 15, "the worker says that it is there")
        wait_until(lambda: not child.is_running(), 15, "end of the child of a lost crawl")
        crawl = Ordered(store, PAGES)
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(10), 1)
        wait_until(
            lambda: not store.client.exists(f"vscrapy:{{{lost.crawl_id}}}:log"), 10, "no lines left"
        )


TALKATIVE = """
class S(scrapy.Spider):
    name = "s"
    async def start(self):
        yield page(1)
    def parse(self, response):
        print("ready", flush=True)
        while not os.path.exists(self.go):
            time.sleep(0.01)
        for n in range(int(self.count)):
            print(f"line {n}")
        os.rename(self.go, self.go + ".said")
        while os.path.exists(self.go + ".said"):
            time.sleep(0.01)
"""


def test_lines_of_a_server_that_is_away_wait_and_those_beyond_the_bound_are_counted(
    folder: Path, tmp_path: Path
) -> None:
    own, go, said = EmbeddedServer(folder), tmp_path / "go", tmp_path / "go.said"
    count = SPOOL_LINES + 5000
    with own, Store.connect(own.url) as store, Workers(own.url, "--name", "w") as crew:
        crawl = Ordered(store, TALKATIVE, args={"count": str(count), "go": str(go)})
        crawl.wait_for_line("ready")
        own.kill()
        wait_until(lambda: counted(crew, AWAY), 10, "noticed")
        go.touch()
        wait_until(said.exists, 20, "all lines were written")
        own.start()
        said.unlink()
        assert crawl.wait(60).state is CrawlState.FINISHED
        numbers = [int(x.text[5:]) for x in crawl.lines() if x.text.startswith("line ")]
        assert numbers == list(range(count - len(numbers), count)), "the oldest are left out"
        (dropped,) = [x for x in crawl.lines() if x.dropped]
        assert dropped.text == f"{dropped.dropped} lines were dropped here"
        assert 0 <= dropped.dropped - (count - len(numbers)) < 20, "others of the child's"
        assert len(numbers) > SPOOL_LINES - 20


def _workers(store: Store) -> set[str]:
    try:
        return set(workers(store))
    except StoreError:
        return set()


def test_children_are_stopped_in_time_while_the_server_does_not_answer(folder: Path) -> None:
    own = EmbeddedServer(folder)
    with own, Store.connect(own.url) as store, Workers(own.url, "--name", "w") as crew:
        crawl = Ordered(store, HANGING)
        crawl.wait_for_line("hangs")
        (child,) = crew.zygote().children()
        assert own.pid is not None
        os.kill(own.pid, signal.SIGSTOP)
        try:
            crew.terminate()
            wait_until(lambda: not child.is_running(), 3 * 3, "end of the child")
        finally:
            os.kill(own.pid, signal.SIGCONT)
        assert crew.wait(20) == 0
