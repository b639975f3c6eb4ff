"""A request that ends the process gets strikes, and three bury it; a foreign kill is no strike."""

import os
import re
import signal

import pytest

from tests.waiting import wait_until
from tests.worker.crew import KILLS_AT_ONE, PAGES, Ordered, Workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import CrawlState
from vscrapy_magic.store.values import PlainCodec

STRIKE = "the request that it worked on gets a strike"


@pytest.mark.parametrize(
    ("statement", "how", "name"),
    [
        ("ctypes.string_at(0)", "died of signal 11 (Segmentation fault) while running", "SIGSEGV"),
        ("os.abort()", "died of signal 6 (Aborted) while running", "SIGABRT"),
        ("os._exit(3)", "was ended by its own code (exit code 3) while running", "exit code 3"),
        ("os._exit(0)", "was ended by its own code (exit code 0) while running", "exit code 0"),
        (
            "sys.exit('enough')",
            "was ended by SystemExit in the spider's code while running",
            "SystemExit",
        ),
    ],
)
def test_request_that_ends_the_process_is_given_up_after_three(
    store: Store, statement: str, how: str, name: str
) -> None:
    with Workers(store.url, "--name", "w"):
        crawl = Ordered(store, KILLS_AT_ONE % statement)
        view = crawl.wait(60)
        assert view.state is CrawlState.FINISHED, crawl.log()
        assert crawl.numbers() == dict.fromkeys([0, 2, 3, 4, 5], 1), crawl.log()
        assert crawl.log().count(f"the child {how}; {STRIKE}") == 3, crawl.log()
        *deaths, buried = crawl.failures()
        assert view.totals.failures == 1 + len(deaths)
        # Each death is a failure with its request; what ended it is told where something could.
        assert [death.attempt for death in deaths] == [1, 2, 3]
        assert {(death.kind, death.type, death.message) for death in deaths} == {
            ("crash", name, f"the process {how}")
        }
        assert {death.place for death in deaths} == {
            "" if "exit code" in name else "spider.py, line 16, in parse"
        }
        for record in [*deaths, buried]:
            assert record.url == "data:text/plain,1"
            assert PlainCodec().decode(record.request)["meta"]["download_slot"] == "pages"
        assert buried.kind == "buried"
        assert any("Spider opened" in line for line in deaths[0].log)


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
        # It may be measured while the 400 MB are being filled.
        assert re.search(r"the child was killed: it used [34]\d\d MB of memory", line.text)
        assert STRIKE in line.text
        kinds = [(record.kind, record.type, record.url) for record in crawl.failures()]
        assert kinds[0] == ("memory", "MemoryLimit", "data:text/plain,1")
