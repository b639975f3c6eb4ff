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
