"""The local cluster: one for all senders of a user, heals when killed, ends by itself."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.clusters import ENDED_WITHIN_S, cluster_home, processes
from tests.store.driver import order
from tests.waiting import wait_until
from vscrapy_magic.config import check_platform
from vscrapy_magic.errors import ConfigError, ServerStartError, StoreError
from vscrapy_magic.sender import cluster as cluster_module
from vscrapy_magic.sender.beacon import Beacon
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.store import environment
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.environment import ENVIRONMENT_VARIABLE, environment_id
from vscrapy_magic.store.keys import SessionId, WorkerName
from vscrapy_magic.store.messages import SessionRecord, WorkerRecord
from vscrapy_magic.store.presence import Liveness, Presence

LONG_S = "120"
SHORT_S = "1.5"
UP_WITHIN_S = 15.0  # measured: 0.4 s for workers, 0.2 s for the server
OURS = SessionRecord(session=SessionId("ours"), host="h", pid=os.getpid())


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with cluster_home(monkeypatch, idle_s=LONG_S) as folder:
        yield folder


def pid_of(home: Path, *words: str) -> int:
    (process,) = processes(home, *words)
    return process.pid


def live_workers(url: str) -> dict[WorkerName, WorkerRecord]:
    try:
        with Store.connect(url) as store:
            views = Presence(store).workers()
    except StoreError:
        return {}
    live = [view.record for view in views if view.liveness is Liveness.LIVE]
    return {record.name: record for record in live if psutil.pid_exists(record.pid)}


def has_workers(url: str, count: int = 2) -> Callable[[], bool]:
    return lambda: len(live_workers(url)) == count


def test_nothing_runs_until_somebody_wants_it(home: Path) -> None:
    assert LocalCluster.running() is None
    assert not processes(home)
    url = LocalCluster.ensure(2)
    assert LocalCluster.running() == url == LocalCluster.url()
    wait_until(has_workers(url), UP_WITHIN_S)
    assert set(live_workers(url)) == {"local-1", "local-2"}
    assert {record.env for record in live_workers(url).values()} == {environment_id()}


def test_two_processes_at_once_share_one_server(home: Path) -> None:
    program = """
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.store.connection import Store
with Store.connect(LocalCluster.ensure(2)) as store:
    print(store.run_id())
"""
    senders = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    runs = {sender.communicate(timeout=60)[0] for sender in senders}
    assert len(runs) == 1
    assert runs != {""}
    wait_until(has_workers(LocalCluster.url()), UP_WITHIN_S)
    assert len(processes(home, "store.keeper")) == 1
    assert len(processes(home, "vscrapy_magic.worker")) == 1


def test_only_its_user_may_enter(home: Path) -> None:
    LocalCluster.ensure(1)
    for folder in (home / "vscrapy", home / "vscrapy" / "cluster"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (home / "vscrapy" / "cluster" / "keeper.sock").stat().st_mode & 0o077 == 0


def test_sockets_of_killed_zygotes_go_when_a_keeper_starts(home: Path) -> None:
    folder = home / "vscrapy" / "cluster"
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o700)
    left = folder / "0123456789ab.1"  # its number is another process's by now
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(left))
    foreign = folder / "notes.1"
    foreign.touch()
    LocalCluster.ensure(1)
    assert not left.exists()
    assert foreign.exists()


def test_more_workers_are_added_and_never_fewer(home: Path) -> None:
    url = LocalCluster.ensure(1)
    wait_until(has_workers(url, 1), UP_WITHIN_S)
    LocalCluster.ensure(3)
    wait_until(has_workers(url, 3), UP_WITHIN_S)
    assert set(live_workers(url)) == {"local-1", "local2-1", "local2-2"}
    LocalCluster.ensure(2)
    assert len(live_workers(url)) == 3


@pytest.mark.parametrize(
    "words", [("valkey-server", "unixsocket:"), ("/bin/sh", "valkey"), ("store.keeper",)]
)
def test_a_killed_server_or_keeper_comes_back_with_what_was_acknowledged(
    home: Path, words: tuple[str, ...]
) -> None:
    url = LocalCluster.ensure(2)
    wait_until(has_workers(url), UP_WITHIN_S)
    before = {process.pid for process in processes(home)}
    with Store.connect(url) as store:
        Presence(store).beat_session(OURS)
        crawl = order(store, env="nowhere")
    (victim, *_) = sorted(processes(home, *words), key=lambda process: process.pid)
    victim.kill()
    if words == ("store.keeper",):
        wait_until(lambda: not processes(home), ENDED_WITHIN_S, "orphans of the keeper")
    else:
        wait_until(lambda: not victim.is_running(), 5)
        gone = ("valkey-server", "unixsocket:")
        wait_until(lambda: {p.pid for p in processes(home, *gone)} - before, UP_WITHIN_S)
    assert LocalCluster.ensure(2) == url
    with Store.connect(url) as store:
        assert Crawls(store).view(crawl.crawl_id).spec.env == "nowhere"
    wait_until(has_workers(url), UP_WITHIN_S)
    assert len(processes(home, "valkey-server", "unixsocket:")) == 1


@pytest.mark.parametrize("words", [("vscrapy_magic.worker",), ("runtime.zygote",)])
def test_killed_workers_come_back_by_themselves(home: Path, words: tuple[str, ...]) -> None:
    url = LocalCluster.ensure(2)
    wait_until(has_workers(url), UP_WITHIN_S)
    wait_until(lambda: processes(home, *words), UP_WITHIN_S)
    victim = pid_of(home, *words)
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: [p for p in processes(home, *words) if p.pid != victim], UP_WITHIN_S, "come back"
    )
    wait_until(has_workers(url), UP_WITHIN_S)
    wait_until(lambda: len(processes(home, "runtime.zygote")) == 1, UP_WITHIN_S, "an orphan")


def test_a_session_heals_its_cluster_by_itself(home: Path) -> None:
    url = LocalCluster.ensure(2)
    with Store.connect(url) as store:
        Presence(store).beat_session(OURS)
    with Beacon(url, OURS, ttl_ms=2000) as beacon:
        os.kill(pid_of(home, "store.keeper"), signal.SIGKILL)
        wait_until(has_workers(url), UP_WITHIN_S)
        assert beacon.alive()


def test_a_session_gets_its_workers_back_when_another_environment_was_faster(home: Path) -> None:
    url = LocalCluster.ensure(1)
    with Store.connect(url) as store:
        Presence(store).beat_session(OURS)
    program = "from vscrapy_magic.sender.cluster import LocalCluster as c; c.ensure(1)"
    with Beacon(url, OURS, ttl_ms=10_000) as beacon:
        os.kill(pid_of(home, "store.keeper"), signal.SIGKILL)
        with run_in("other", program) as other:
            assert other.wait(30) == 0
        wait_until(
            lambda: {r.env for r in live_workers(url).values()} == {"other", environment_id()},
            2 * UP_WITHIN_S,
        )
        assert beacon.alive()


def test_it_ends_after_its_last_session_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSCRAPY_IDLE_S", SHORT_S)
    url = LocalCluster.ensure(1)
    with Store.connect(url) as store:
        Presence(store).beat_session(OURS)
        with Beacon(url, OURS, ttl_ms=2000):
            stays_s = 3 * float(SHORT_S)
            with pytest.raises(AssertionError):
                wait_until(lambda: LocalCluster.running() is None, stays_s)
    wait_until(lambda: not processes(home), ENDED_WITHIN_S)
    assert not (home / "vscrapy" / "cluster").exists()
    assert LocalCluster.ensure(1) == url


def test_a_detached_crawl_counts_as_a_session(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCRAPY_IDLE_S", SHORT_S)
    url = LocalCluster.ensure(1)
    with Store.connect(url) as store:
        crawl = order(store, env="nowhere")
        with pytest.raises(AssertionError):
            wait_until(lambda: LocalCluster.running() is None, 3 * float(SHORT_S))
        Crawls(store).kill(crawl.crawl_id)
    wait_until(lambda: not processes(home), ENDED_WITHIN_S)


def run_in(environment_name: str, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {ENVIRONMENT_VARIABLE: environment_name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_environment_has_its_own_workers_while_it_is_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSCRAPY_IDLE_S", SHORT_S)
    url = LocalCluster.ensure(1)
    with Store.connect(url) as store:
        Presence(store).beat_session(OURS)
    program = """
from vscrapy_magic.sender.cluster import LocalCluster
print(LocalCluster.ensure(2), flush=True)
input()
"""
    with Beacon(url, OURS, ttl_ms=2000), run_in("other", program) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == url
        wait_until(has_workers(url, 3), UP_WITHIN_S)
        names = {name: record.env for name, record in live_workers(url).items()}
        assert names == {
            "local-1": environment_id(),
            "local2-1": "other",
            "local2-2": "other",
        }
        other.communicate("\n", timeout=10)
        wait_until(has_workers(url, 1), ENDED_WITHIN_S)
        assert set(live_workers(url)) == {"local-1"}


def test_a_server_that_cannot_start_is_told_to_whoever_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "vscrapy" / "cluster" / "server"
    folder.mkdir(parents=True, mode=0o700)
    for each in (home / "vscrapy", home / "vscrapy" / "cluster"):
        each.chmod(0o700)
    folder.chmod(0o777)
    with pytest.raises(ServerStartError, match="chmod 700"):
        LocalCluster.ensure(1)
    folder.chmod(0o700)
    assert LocalCluster.ensure(1)


def test_data_that_cannot_be_read_are_moved_away(home: Path) -> None:
    folder = home / "vscrapy" / "cluster" / "server"
    folder.mkdir(parents=True, mode=0o700)
    for each in (home / "vscrapy", home / "vscrapy" / "cluster"):
        each.chmod(0o700)
    (folder / "appendonlydir").write_text("in the way")
    assert LocalCluster.ensure(1)
    assert (home / "vscrapy" / "cluster" / "unreadable" / "appendonlydir").exists()


def test_mistakes_are_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="inside WSL"):
        check_platform("win32")
    check_platform("linux")
    check_platform("darwin")
    with pytest.raises(ConfigError, match="at least one"):
        LocalCluster.ensure(0)
    monkeypatch.setenv("VSCRAPY_LOCAL_WORKERS", "many")
    with pytest.raises(ConfigError, match="VSCRAPY_LOCAL_WORKERS=many"):
        LocalCluster.ensure()
    monkeypatch.setattr(cluster_module, "_KEEPER", ("/nowhere/python",))
    with pytest.raises(ServerStartError, match="cannot be started"):
        LocalCluster.ensure(1)
    assert not processes(home)


def test_an_environment_is_known_by_what_a_spider_finds_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fresh() -> str:
        return environment.environment_id.__wrapped__()

    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    before = fresh()
    assert before == fresh()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fresh() != before
    monkeypatch.chdir(tmp_path.parent)
    with_path = fresh()
    monkeypatch.setenv("PYTHONPATH", tmp_path.name)
    assert fresh() == with_path
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(environment.sys, "prefix", str(tmp_path))
    assert fresh() != before
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "given")
    assert fresh() == "given"
