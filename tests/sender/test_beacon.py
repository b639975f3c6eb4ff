"""The heartbeat: who is gone, who is only slow, and what becomes of whose crawls."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.store.driver import order
from tests.waiting import wait_until
from vscrapy_magic.errors import StoreError
from vscrapy_magic.sender.beacon import Beacon, Sender
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId, SessionId, WorkerName
from vscrapy_magic.store.messages import CrawlState, SessionRecord, WorkerRecord
from vscrapy_magic.store.presence import Liveness, Presence
from vscrapy_magic.store.server import EmbeddedServer

OURS = SessionRecord(session=SessionId("ours"), host="h", pid=1)
SHORT_TTL_MS = 1000
# Measured: 0.25 s when the beacon has to import the driver first, 0.03 s later.
GONE_WITHIN_S = 2.0
WELL = 10_000

# What a kernel does: beats once, starts the beacon, then whatever the test wants.
_KERNEL = """
import sys, time, os, re, threading
import msgspec
from vscrapy_magic.sender.beacon import Beacon
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.messages import SessionRecord
from vscrapy_magic.store.presence import Presence
url, ttl_ms = sys.argv[1], int(sys.argv[2])
record = SessionRecord(session="ours", host="h", pid=os.getpid())
with Store.connect(url) as store:
    Presence(store).beat_session(record, ttl_ms=ttl_ms)
beacon = Beacon(url, record, ttl_ms=ttl_ms)
print(beacon.pid, flush=True)
"""


class Kernel:
    """A process that has a session."""

    def __init__(self, url: str, ttl_ms: int, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _KERNEL + program, url, str(ttl_ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.beacon_pid = int(self.line())
        self.beacon = psutil.Process(self.beacon_pid)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        wait_until(lambda: not is_running(self.beacon), 5, "the beacon still runs")


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def worker_record() -> WorkerRecord:
    return WorkerRecord(name=WorkerName("w1"), host="h", pid=3, slots=8)


StartKernel = Callable[..., Kernel]


@pytest.fixture
def kernel(store: Store) -> Iterator[StartKernel]:
    kernels: list[Kernel] = []

    def start(program: str = "time.sleep(600)", ttl_ms: int = WELL) -> Kernel:
        kernels.append(Kernel(store.url, ttl_ms, program))
        return kernels[-1]

    yield start
    for each in kernels:
        each.close()


def ours(store: Store) -> CrawlId:
    return order(store, session=SessionId("ours")).crawl_id


def state(store: Store, crawl_id: CrawlId) -> tuple[CrawlState, str]:
    view = Crawls(store).view(crawl_id)
    return view.state, view.why


def has_beaten(store: Store, since_ms: int = 0) -> bool:
    heard = store.client.hget("vscrapy:sessions:heard", "ours")
    return heard is not None and int(heard) > since_ms


def now_ms(store: Store) -> int:
    seconds, micros = store.client.time()
    return int(seconds * 1000 + micros // 1000)


@pytest.mark.parametrize("beats_before", [False, True])
def test_the_crawl_of_a_killed_kernel_is_cancelled_everywhere_at_once(
    store: Store, kernel: StartKernel, worker_record: WorkerRecord, beats_before: bool
) -> None:
    mine, other, detached = ours(store), order(store, session=SessionId("x")), order(store)
    presence = Presence(store)
    presence.beat_worker(worker_record)
    victim = kernel()
    if beats_before:
        begun = now_ms(store)
        wait_until(lambda: has_beaten(store, begun), 5)
    while presence.wait_worker(worker_record.name, 0):
        pass
    victim.process.kill()
    assert presence.wait_worker(worker_record.name, GONE_WITHIN_S)
    wait_until(lambda: state(store, mine)[0] is CrawlState.CANCELLED, GONE_WITHIN_S)
    assert state(store, mine) == (CrawlState.CANCELLED, "its sender is gone")
    for left in (other, detached):
        assert state(store, left.crawl_id)[0] is CrawlState.QUEUED
    assert presence.beat_worker(worker_record).gone_sessions == {"ours": "its sender is gone"}


def test_a_process_that_the_kernel_forked_does_not_keep_it_alive(
    store: Store, kernel: StartKernel
) -> None:
    mine = ours(store)
    victim = kernel(
        """
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""
    )
    child = psutil.Process(int(victim.line()))
    try:
        victim.process.kill()
        wait_until(lambda: state(store, mine)[0] is CrawlState.CANCELLED, GONE_WITHIN_S)
        assert is_running(child)
    finally:
        child.kill()


@pytest.mark.parametrize(
    "program",
    [
        "os.kill(os.getpid(), 19)",
        # Takes 20 s and holds the interpreter; signals other than SIGKILL would wait for it.
        "re.match(r'(a+)+$', 'a' * 29 + 'b')",
    ],
)
def test_a_kernel_that_cannot_answer_is_not_gone(
    store: Store, kernel: StartKernel, worker_record: WorkerRecord, program: str
) -> None:
    mine = ours(store)
    presence = Presence(store)
    silent = kernel(program, ttl_ms=SHORT_TTL_MS)
    until = time.monotonic() + 3 * SHORT_TTL_MS / 1000
    while time.monotonic() < until:
        assert presence.beat_worker(worker_record).gone_sessions == {}
        time.sleep(0.1)
    assert silent.process.poll() is None
    assert state(store, mine)[0] is CrawlState.QUEUED


def test_an_interrupt_of_the_kernels_group_does_not_reach_the_beacon(
    store: Store, kernel: StartKernel
) -> None:
    ours(store)
    interrupted = kernel("\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    input()")
    begun = now_ms(store)
    wait_until(lambda: has_beaten(store, begun), 15)  # by then the kernel is in its `try`
    os.killpg(interrupted.process.pid, signal.SIGINT)
    begun = now_ms(store)
    wait_until(lambda: has_beaten(store, begun), 15)
    assert is_running(interrupted.beacon)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vs-"))
    yield path
    shutil.rmtree(path)


def test_a_session_survives_a_restart_of_the_server(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        with Store.connect(server.url) as store:
            mine = ours(store)
            Presence(store).beat_session(OURS, ttl_ms=SHORT_TTL_MS)
        with Beacon(server.url, OURS, ttl_ms=SHORT_TTL_MS) as beacon:
            server.kill()
            away_until = time.monotonic() + 2 * SHORT_TTL_MS / 1000
            while time.monotonic() < away_until:
                assert beacon.alive()
                time.sleep(0.1)
            server.start()
            with Store.connect(server.url) as store:
                begun = now_ms(store)
                wait_until(lambda: has_beaten(store, begun), 5)
                assert (beacon.verdict(), beacon.alive()) == ("", True)
                assert state(store, mine)[0] is CrawlState.QUEUED
                beacon.close()
                assert state(store, mine) == (CrawlState.CANCELLED, "its sender is gone")


def test_a_session_judged_gone_hears_why_and_loses_its_crawls(store: Store) -> None:
    presence, mine = Presence(store), ours(store)
    presence.beat_session(OURS)
    with Beacon(store.url, OURS, ttl_ms=SHORT_TTL_MS) as beacon:
        store.client.zadd("vscrapy:sessions:gone", {"ours": now_ms(store)})
        store.client.hset("vscrapy:sessions:heard", "ours", now_ms(store) - 14_000)
        wait_until(lambda: not beacon.alive(), 5)
        assert beacon.verdict() == "not heard of for 14 s"
        assert beacon.verdict() == "not heard of for 14 s"
    why = "its sender was not heard of for 14 s"
    assert state(store, mine) == (CrawlState.CANCELLED, why)


def test_crawls_of_a_silent_session_are_cancelled_where_no_worker_is(store: Store) -> None:
    other = order(store, session=SessionId("other"))
    presence = Presence(store)
    presence.beat_session(OURS)
    with Beacon(store.url, OURS, ttl_ms=SHORT_TTL_MS):
        presence.beat_session(msgspec.structs.replace(OURS, session=SessionId("other")), ttl_ms=1)
        wait_until(lambda: state(store, other.crawl_id)[0] is CrawlState.CANCELLED, 5)
    assert state(store, other.crawl_id)[1] == "its sender was not heard of for 1 s"


def test_a_killed_beacon_is_noticed_and_its_session_can_still_be_ended(store: Store) -> None:
    mine = ours(store)
    Presence(store).beat_session(OURS)
    with Beacon(store.url, OURS, ttl_ms=WELL) as beacon:
        assert beacon.alive()
        os.kill(beacon.pid, signal.SIGKILL)
        wait_until(lambda: not beacon.alive(), 2)
        assert beacon.verdict() == ""
        with Beacon(store.url, OURS, ttl_ms=WELL) as second:
            assert second.alive()
            begun = now_ms(store)
            wait_until(lambda: has_beaten(store, begun), 5)
            os.kill(second.pid, signal.SIGKILL)
            second.close()
    assert state(store, mine)[0] is CrawlState.CANCELLED


def test_close_ends_only_this_session(store: Store, worker_record: WorkerRecord) -> None:
    mine, other, detached = ours(store), order(store, session=SessionId("x")), order(store)
    presence = Presence(store)
    presence.beat_session(OURS)
    begun = time.monotonic()
    beacon = Beacon(store.url, OURS, ttl_ms=WELL)
    assert time.monotonic() - begun < 0.1  # measured: 3 ms
    beacon.close()
    beacon.close()
    assert state(store, mine) == (CrawlState.CANCELLED, "its sender is gone")
    assert state(store, other.crawl_id)[0] is CrawlState.QUEUED
    assert state(store, detached.crawl_id)[0] is CrawlState.QUEUED
    assert presence.beat_worker(worker_record).gone_sessions.keys() == {"ours"}


def test_close_does_not_wait_for_a_server_that_is_away(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        with Store.connect(server.url) as store:
            mine = ours(store)
            Presence(store).beat_session(OURS)
        beacon = Beacon(server.url, OURS, ttl_ms=WELL)
        server.kill()
        begun = time.monotonic()
        beacon.close()
        assert time.monotonic() - begun < 2.0
        server.start()
        with Store.connect(server.url) as store:
            wait_until(lambda: state(store, mine)[0] is CrawlState.CANCELLED, 5)
        wait_until(lambda: not beacon.alive(), 5)


def test_the_password_is_in_no_list_of_processes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{store.url}?password=hush-hush"
    monkeypatch.setenv("VSCRAPY_REDIS_URL", url)
    with Beacon(url, OURS, ttl_ms=WELL) as beacon:
        process = psutil.Process(beacon.pid)
        wait_until(lambda: "vscrapy_magic.sender.beacon" in process.cmdline(), 2)
        assert "hush" not in " ".join(process.cmdline())
        assert "hush" not in " ".join(process.environ().values())
        assert "hush" not in repr(beacon)
        os.kill(beacon.pid, signal.SIGKILL)
        wait_until(lambda: not beacon.alive(), 2)
        with pytest.raises(StoreError):  # there is no such password on this server
            Store.connect(url)


def test_without_pidfd_a_changed_parent_says_that_the_sender_is_gone() -> None:
    reading, writing = os.pipe()
    try:
        here = Sender(os.getppid(), reading, use_pidfd=False)
        assert not here.is_gone(0.01)
        orphan = Sender(os.getppid() + 1, reading, use_pidfd=False)
        assert orphan.is_gone(5)
    finally:
        os.close(reading)
        os.close(writing)


def test_an_idle_beacon_sends_at_most_one_command_a_second(
    store: Store, kernel: StartKernel
) -> None:
    kernel()
    wait_until(lambda: has_beaten(store, now_ms(store) - 100), 5)

    def beats() -> int:
        scripts = store.client.info("commandstats").get("cmdstat_evalsha", {})
        return int(scripts.get("calls", 0))

    before, begun = beats(), time.monotonic()
    wait_until(lambda: beats() >= before + 2, 10)
    assert time.monotonic() - begun > 2.0
    assert Presence(store).sessions()[0].liveness is Liveness.LIVE
