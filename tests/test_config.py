"""Where Redis is: the environment, the file, and what may be shown of an address."""

import tempfile
from pathlib import Path

import pytest

from vscrapy_magic import config
from vscrapy_magic.errors import ConfigError


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(config.URL_VARIABLE, raising=False)


def test_without_anything_the_local_cluster_is_meant() -> None:
    assert config.redis_url() is None


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.save_redis_url("redis://:secret@one:6379/0")
    assert path.stat().st_mode & 0o777 == 0o600
    assert config.redis_url() == "redis://:secret@one:6379/0"
    monkeypatch.setenv(config.URL_VARIABLE, "rediss://two")
    assert config.redis_url() == "rediss://two"
    monkeypatch.delenv(config.URL_VARIABLE)
    config.save_redis_url(None)
    assert config.redis_url() is None


def test_a_password_that_others_may_read_is_refused() -> None:
    path = config.save_redis_url("redis://:secret@one")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600") as error:
        config.redis_url()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis_url = redis://:secret@x", "not TOML"),
        ("redis_ulr = 'redis://x'", "did you mean redis_url"),
        ("redis_url = 5", "should be a string"),
        ("redis_url = 'http://:secret@x'", "redis://"),
    ],
)
def test_mistakes_in_the_file_are_one_line(text: str, message: str) -> None:
    config.config_path().parent.mkdir(parents=True)
    config.config_path().write_text(text)
    config.config_path().chmod(0o600)
    with pytest.raises(ConfigError, match=message) as error:
        config.redis_url()
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pass@host:6379/1", "redis://host:6379/1"),
        ("redis://:p@ss@host", "redis://host"),
        ("unix:///run/x.sock?password=pass&db=2", "unix:///run/x.sock?db=2"),
        ("user:pass@host", "host"),
    ],
)
def test_what_is_shown_holds_no_secret(url: str, shown: str) -> None:
    assert config.redact(url) == shown


def test_the_runtime_folder_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="vs-") as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        folder = config.runtime_dir()
        assert folder == Path(short) / "vscrapy"
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)
        with pytest.raises(ConfigError, match="chmod 700"):
            config.runtime_dir()


def test_a_time_is_given_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.setting_ms("VSCRAPY_TEST_S", 10_000) == 10_000
    monkeypatch.setenv("VSCRAPY_TEST_S", "2.5")
    assert config.setting_ms("VSCRAPY_TEST_S", 10_000) == 2500
    for wrong in ("soon", "0", "-1", "inf"):
        monkeypatch.setenv("VSCRAPY_TEST_S", wrong)
        with pytest.raises(ConfigError, match=f"VSCRAPY_TEST_S={wrong}: a number of seconds"):
            config.setting_ms("VSCRAPY_TEST_S", 10_000)
