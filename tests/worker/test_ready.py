"""A worker takes crawls when it can fork, and says what keeps it from that."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.worker.crew import PAGES, Ordered, Workers, workers
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName, global_key
from vscrapy_magic.store.messages import ChildOrder, CrawlState, WorkerRecord
from vscrapy_magic.store.placement import BUNDLE_TTL_MS, bundle_key
from vscrapy_magic.store.presence import Liveness
from vscrapy_magic.worker import desk as desk_module
from vscrapy_magic.worker.plan import Roster
from vscrapy_magic.worker.spares import Spares
from vscrapy_magic.worker.zygote import Zygotes, new_source

ENDLESS = {"count": "5000", "delay": "0.02"}
JOINS_WITHIN_S = 3 * 0.3  # promised 0.3
# What a zygote does before it imports anything: it says that it is there, and waits for the gate.
GATE = """
import os, pathlib, sys, time
if any("zygote" in word for word in sys.orig_argv):
    gate = pathlib.Path(os.environ["GATE"])
    (gate / f"at-{os.getpid()}").touch()
    while (gate / "closed").exists():
        time.sleep(0.01)
    if (gate / "broken").exists():
        sys.modules["scrapy"] = None
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A folder whose files say what zygotes do: `closed` keeps them waiting, `broken` fails."""
    (tmp_path / "sitecustomize.py").write_text(GATE)
    return tmp_path


def gated(store: Store, gate: Path, *options: str, **environment: str) -> Workers:
    return Workers(store.url, *options, PYTHONPATH=str(gate), GATE=str(gate), **environment)


def arrivals(gate: Path) -> int:
    """How many zygotes have begun."""
    return len(list(gate.glob("at-*")))


def is_connected(store: Store) -> bool:
    """Whether a worker has reached the server; this test's own connection is one of them."""
    return len(store.client.client_list()) > 1


def test_a_worker_is_known_only_when_it_can_fork(store: Store, gate: Path) -> None:
    (gate / "closed").touch()
    with gated(store, gate, "--name", "w1") as crew:
        wait_until(lambda: arrivals(gate) and is_connected(store), 20, "its zygote begins")
        with Workers(store.url, "--name", "w2"):
            # It began later, and is known: the first one had all the time to be.
            wait_until(lambda: "w2" in workers(store), 20, "another worker")
            assert set(workers(store)) == {"w2"}
            assert "is ready" not in crew.text()
        crawl = Ordered(store, PAGES)
        (gate / "closed").unlink()
        wait_until(lambda: "w1" in workers(store), 20, "it is known")
        assert crawl.wait().state is CrawlState.FINISHED
        wait_until(lambda: "Worker w1 is ready and serves" in crew.text(), 5, "it says so")


def test_a_late_worker_takes_part_as_soon_as_it_is_known(store: Store) -> None:
    with Workers(store.url, "--name", "w1"):
        crawl = Ordered(store, PAGES, args=ENDLESS)
        wait_until(crawl.items, 20, "items")
        with Workers(store.url, "--name", "w2"):
            wait_until(lambda: "w2" in workers(store), 20, "it is known")
            known_s = time.monotonic()
            first = crawl.pids()
            wait_until(lambda: {item["pid"] for item in crawl.items()} - first, 10, "its page")
            assert time.monotonic() - known_s < JOINS_WITHIN_S, crawl.log()
            crawl.crawls.kill(crawl.crawl_id)


def test_a_worker_keeps_the_source_of_its_crawls(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "SETTINGS_S", 0.1)
    desk = desk_module.Desk(store, lambda: None)
    crawl = Ordered(store, PAGES)
    key = bundle_key(crawl.view().spec.bundle)
    store.client.pexpire(key, 5000)

    def is_kept() -> bool:
        record = WorkerRecord(name=WorkerName("w"), host="h", pid=1, slots=0)
        desk.look(Roster(records=(record,), tenants=(), taking=False))
        wait_until(lambda: desk.plan() is not None, 5, "a plan")
        return store.client.pttl(key) > BUNDLE_TTL_MS - 60_000

    try:
        wait_until(is_kept, 10, "its source is kept")
    finally:
        desk.close([WorkerName("w")])


def test_a_zygote_that_cannot_import_is_told_once_and_tried_again(store: Store, gate: Path) -> None:
    (gate / "broken").touch()
    with gated(store, gate, "--name", "w1") as crew:
        wait_until(lambda: arrivals(gate) > 1, 20, "a second attempt")
        assert workers(store) == {}
        (said,) = [line for line in crew.said if "No crawl is taken here" in line]
        assert "the zygote ended while it imported Scrapy (ModuleNotFoundError: " in said
        assert len(crew.said) == 1
        (gate / "broken").unlink()
        assert Ordered(store, PAGES).wait().state is CrawlState.FINISHED
        assert "Crawls are taken here: the zygote is ready" in crew.text()


def test_a_zygote_that_never_gets_ready_is_replaced(store: Store, gate: Path) -> None:
    (gate / "closed").touch()
    with gated(store, gate, "--name", "w1", VSCRAPY_READY_S="1.5") as crew:
        wait_until(lambda: "was not ready to fork within 1.5 s" in crew.text(), 20, "it says so")
        (gate / "closed").unlink()
        assert Ordered(store, PAGES).wait().state is CrawlState.FINISHED
        assert arrivals(gate) == 2


def test_a_worker_whose_zygote_is_replaced_beats_on_and_leaves_crawls_to_others(
    store: Store, gate: Path
) -> None:
    with gated(store, gate, "--name", "w1") as first:
        wait_until(lambda: "w1" in workers(store), 20, "a worker")
        (gate / "closed").touch()
        first.zygote().kill()
        wait_until(lambda: arrivals(gate) == 2, 10, "another zygote begins")
        waiting = Ordered(store, PAGES, workers=1)  # taken once, it would be nobody else's
        due = deadline(store)
        wait_until(lambda: deadline(store) > due, 10, "a beat")
        assert waiting.view().members == ()
        with Workers(store.url, "--name", "w2"):
            wait_until(lambda: "w2" in workers(store), 20, "a worker that is ready")
            assert waiting.wait(6).state is CrawlState.FINISHED  # it would get it back after 10 s
        assert {line.worker for line in waiting.lines()} == {"w2"}
        assert workers(store)["w1"].liveness is Liveness.LIVE
        second = Ordered(store, PAGES)
        (gate / "closed").unlink()
        assert second.wait().state is CrawlState.FINISHED


def test_a_crawl_says_why_a_known_worker_cannot_start_it(store: Store, gate: Path) -> None:
    with gated(store, gate, "--name", "w1") as crew:
        wait_until(lambda: "w1" in workers(store), 20, "a worker")
        (gate / "broken").touch()
        crew.zygote().kill()
        wait_until(lambda: "No crawl is taken here" in crew.text(), 20, "it says so")
        crawl = Ordered(store, PAGES)
        wait_until(lambda: crawl.view().why, 10, "a reason")
        assert crawl.view().why.startswith(
            "a worker cannot start it: the zygote ended while it imported Scrapy (Module"
        )
        (gate / "broken").unlink()
        assert crawl.wait().state is CrawlState.FINISHED


def deadline(store: Store) -> float:
    """When w1 would be judged gone; a beat moves it."""
    return float(store.client.zscore(global_key("workers:due"), "w1") or 0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_go_while_it_comes_up_goes_at_once(
    store: Store, gate: Path, number: signal.Signals
) -> None:
    (gate / "closed").touch()
    with gated(store, gate, "--name", "w1") as crew:
        wait_until(lambda: arrivals(gate) and is_connected(store), 20, "its zygote begins")
        wait_until(lambda: handles(crew.pid, signal.SIGTERM), 10, "a handler")
        crew.process.send_signal(number)
        assert crew.wait(2) == 0
        assert workers(store) == {}


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for that signal."""
    caught = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line
    )
    mask = int(caught.split()[1], 16)
    return bool(mask >> (number - 1) & 1)


def pump(source: Spares | Zygotes, timeout_s: float = 20) -> None:
    """Be the loop of a supervisor until children can be started, or cannot."""

    def turn() -> bool:
        source.tend(time.monotonic())
        for fd in select.select(source.sockets(), [], [], 0.1)[0]:
            source.heard(fd)
        return source.ready or bool(source.problem)

    wait_until(turn, timeout_s, "ready, or broken")


def test_where_forks_crash_a_spare_says_when_it_is_warm(tmp_path: Path) -> None:
    source = new_source("darwin")
    assert isinstance(source, Spares)
    try:
        assert not source.ready
        (pid,) = source.pids()
        pump(source)
        assert source.ready
        assert source.sockets() == []  # nothing more to hear before its order
        order = ChildOrder(
            crawl_id=CrawlId("none"),
            token=MemberToken("t"),
            worker=WorkerName("w"),
            url=f"unix://{tmp_path}/nothing.sock",
            folder=str(tmp_path),
        )
        birth = source.start(order)
        assert birth.process.pid == pid
        assert source.ready  # a child by command line takes no longer than the next spare
        wait_until(lambda: birth.process.code() is not None, 20, "its end")
        birth.process.close()
        birth.pipes.close()
    finally:
        source.close()


def test_a_spare_that_cannot_import_is_a_problem_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['scrapy'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    source = Spares()
    try:
        pump(source)
        assert not source.ready
        assert source.problem.startswith(
            "a spare child ended while it imported Scrapy (ModuleNotFoundError"
        )
        assert source.pids() == []
        (tmp_path / "sitecustomize.py").write_text("")
        wait_until(lambda: (source.tend(time.monotonic()), source.pids())[1], 10, "another one")
        source._attempts.problem = ""
        pump(source)
        assert source.ready
    finally:
        source.close()
