"""A request that ends the process gets strikes, and three bury it; a foreign kill is no strike."""

import os
import signal

import pytest

from tests.waiting import wait_until
from tests.worker.crew import KILLS_AT_ONE, PAGES, Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState

STRIKE = "the request that it worked on gets a strike"


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("ctypes.string_at(0)", "the child died of signal 11 (Segmentation fault) while running"),
        ("os.abort()", "the child died of signal 6 (Aborted) while running"),
        ("os._exit(3)", "the child was ended by its own code (exit code 3) while running"),
        ("os._exit(0)", "the child was ended by its own code (exit code 0) while running"),
        (
            "sys.exit('enough')",
            "the child was ended by SystemExit in the spider's code while running",
        ),
    ],
)
def test_request_that_ends_the_process_is_given_up_after_three(
    store: Store, statement: str, how: str
) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, KILLS_AT_ONE % statement)
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4, 5], 1), crawl.log()
        assert view.totals.failures == 1
        assert crawl.log().count(f"{how}; {STRIKE}") == 3, crawl.log()


def test_foreign_kill_is_no_strike(store: Store) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, PAGES, args={"count": "8", "delay": "1"})
        for number in range(1, 4):
            wait_until(lambda: len(crawl.pids()) == number, 20, "a child")  # noqa: B023
            wait_until(lambda: crawl.view().totals.leased >= 1, 20, "leases")
            os.kill(max(crawl.pids(), key=_started), signal.SIGKILL)
            wait_until(
                lambda: crawl.log().count("died of signal 9") == number,  # noqa: B023
                20,
                "the end of it",
            )
        assert crawl.wait(60).state is CrawlState.FINISHED
        assert crawl.numbers() == dict.fromkeys(range(8), 1)
        assert crawl.view().totals.failures == 0
        assert STRIKE not in crawl.log()


def _started(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return float(file.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0


def test_child_that_takes_too_much_memory_is_killed_with_a_strike(store: Store) -> None:
    statement = "self.kept = bytearray(os.urandom(1)) * (400 * 2**20); time.sleep(5)"
    with Workers(store.url, "--name", "w", "--child-memory", "300"):
        crawl = Ordered(store, KILLS_AT_ONE % statement)
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4, 5], 1)
        line = crawl.wait_for_line("more than the 300 MB of --child-memory")
        assert "the child was killed: it used 4" in line.text
        assert STRIKE in line.text
