"""The zygote dies, or gets old: children go on, and their ends are noticed."""

import os
import signal
from pathlib import Path

import psutil

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

SLOW = {"count": "60", "delay": "0.1"}


def test_children_go_on_without_their_zygote_and_another_one_is_started(store: Store) -> None:
    with Workers(store.url, "--name", "w1") as crew:
        crawl = Ordered(store, PAGES, args=SLOW)
        wait_until(crawl.items, 20, "items")
        old = crew.zygote()
        old.kill()
        wait_until(lambda: crew.has_zygote() and crew.zygote().pid != old.pid, 10, "another one")
        second = Ordered(store, PAGES)
        assert second.wait().state is CrawlState.FINISHED
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(60), 1)
        assert len(crawl.pids()) == 1, crawl.log()
        assert "The zygote has ended (-9); starting another" in crew.text()


def test_end_of_a_child_that_no_zygote_watches_is_noticed(store: Store) -> None:
    with Workers(store.url, "--name", "w1") as crew:
        crawl = Ordered(store, PAGES, args=SLOW)
        wait_until(crawl.items, 20, "items")
        crew.zygote().kill()
        wait_until(lambda: "zygote has ended" in crew.text(), 10, "its end is noticed")
        (pid,) = crawl.pids()
        os.kill(pid, signal.SIGKILL)
        crawl.wait_for_line("the child is gone, and nobody saw how while running")
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(60), 1)
        assert crawl.view().totals.failures == 0


def test_zygote_is_replaced_when_packages_were_installed(store: Store, tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    with Workers(store.url, "--name", "w1", PYTHONPATH=str(packages)) as crew:
        crawl = Ordered(store, PAGES, args=SLOW)
        wait_until(crawl.items, 20, "items")
        old = crew.zygote()
        (packages / "news.py").write_text("told = 42\n")
        wait_until(lambda: "Installed packages have changed" in crew.text(), 10, "noticed")
        second = Ordered(store, "import news\n" + PAGES)
        assert second.wait().state is CrawlState.FINISHED, second.log()
        assert psutil.pid_exists(old.pid)  # its child still runs
        assert crawl.wait().state is CrawlState.FINISHED
        wait_until(lambda: not psutil.pid_exists(old.pid), 10, "end of the old one")


def test_children_start_without_a_zygote_that_cannot_fork(store: Store, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "if any('zygote' in word for word in sys.orig_argv):\n"
        "    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    with Workers(store.url, "--name", "w1", PYTHONPATH=str(tmp_path)) as crew:
        crawl = Ordered(store, PAGES)
        assert crawl.wait().state is CrawlState.FINISHED, crawl.log()
        assert "Children are started without a zygote: the zygote has 2 threads" in crew.text()
