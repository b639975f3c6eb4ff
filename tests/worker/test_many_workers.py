"""`-n N`: several workers of one process, each with a record, and children of its own."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

IDLE_S = 5.0


def test_two_workers_of_one_process_share_a_crawl_and_a_zygote(store: Store) -> None:
    with Workers(store.url, "-n", "2", "--name", "w") as crew:
        wait_until(lambda: len(workers(store)) == 2, 20, "two workers")
        assert sorted(workers(store)) == ["w-1", "w-2"]
        assert {view.record.pid for view in workers(store).values()} == {crew.pid}
        crawl = Ordered(store, PAGES, args={"count": "200", "delay": "0.05"})
        crawl.wait_for_members(2)
        assert {member.worker for member in crawl.view().members} == {"w-1", "w-2"}
        zygote = crew.zygote()
        wait_until(lambda: {child.pid for child in zygote.children()} == crawl.pids(), 10, "pids")
        wait_until(lambda: all(v.record.used for v in workers(store).values()), 10, "used")
        assert all(v.record.memory_bytes > 10**7 for v in workers(store).values())
        assert crawl.wait().state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(200), 1)
        assert {line.worker for line in crawl.lines()} == {"w-1", "w-2"}
    assert workers(store) == {}


def test_names_that_a_live_worker_has_are_not_taken_again(store: Store) -> None:
    host = socket.gethostname()
    with Workers(store.url, "-n", "2"):
        wait_until(lambda: len(workers(store)) == 2, 20, "two workers")
        with Workers(store.url, "-n", "2"):
            wait_until(lambda: len(workers(store)) == 4, 20, "four workers")
            assert sorted(workers(store)) == [f"{host}-{number}" for number in (1, 2, 3, 4)]


def test_auto_is_one_worker_for_each_core(store: Store) -> None:
    with Workers(store.url, "-n", "auto", "--name", "w"):
        cores = len(os.sched_getaffinity(0))
        wait_until(lambda: len(workers(store)) == cores, 20, f"{cores} workers")


def test_idle_process_sends_at_most_one_command_a_second(store: Store) -> None:
    def commands() -> int:
        stats = store.client.info("commandstats")
        return sum(row["calls"] for name, row in stats.items() if name in COUNTED)

    # Commands inside of scripts are counted as well; a client sends only these.
    COUNTED = {f"cmdstat_{name}" for name in ("evalsha", "blpop", "mget", "ping", "hello")}
    with Workers(store.url, "-n", "4", "--name", "w") as crew:
        wait_until(lambda: len(workers(store)) == 4 and crew.ready(), 20, "four workers")
        before, begun = commands(), time.monotonic()
        used = sum(psutil.Process(crew.pid).cpu_times()[:2])
        wait_until(lambda: time.monotonic() - begun > IDLE_S, 2 * IDLE_S)
        assert commands() - before <= IDLE_S
        assert sum(psutil.Process(crew.pid).cpu_times()[:2]) - used < 0.05 * IDLE_S


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "none"], "-n none: a number of workers is needed, or auto"),
        (["-n", "0"], "-n 0: a number"),
        (["--slots", "0"], "--slots: a positive number is needed"),
        (["--child-memory", "-1"], "--child-memory: a positive number"),
        (["--log-level", "loud"], "--log-level loud: DEBUG, INFO"),
        ([], "does not answer"),
    ],
)
def test_mistakes_are_one_clear_line_and_exit_code_2(words: list[str], message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "vscrapy_magic.worker", "redis://127.0.0.1:1", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
