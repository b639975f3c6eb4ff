"""Sources that a process forked from the local cluster's zygote reads, for a sender."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.runtime.test_zygote import Zygote
from tests.waiting import wait_until
from vscrapy_magic.config import runtime_dir
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender import inspecting
from vscrapy_magic.sender.inspecting import FOLDER_NAME, Inspecting, inspect
from vscrapy_magic.store.environment import ENVIRONMENT_VARIABLE, environment_id
from vscrapy_magic.store.inquiry import addresses
from vscrapy_magic.store.inspection import Source

SPIDER = "import scrapy\nclass A(scrapy.Spider):\n    name = 'a'\n"
TOLD = """
import os, sys, tempfile, threading
mask = os.umask(0)
os.umask(mask)
custom_settings = {"TOLD": [
    os.getcwd(), os.environ.get("ONLY_HERE"), os.environ.get("ONLY_THERE"), mask,
    os.fstat(1)[:2] == os.fstat(2)[:2], sys.stdin.read(), tempfile.gettempdir(), sys.argv[1:],
]}
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where zygotes listen."""
    with tempfile.TemporaryDirectory(prefix="vs-") as home:
        monkeypatch.setenv("XDG_RUNTIME_DIR", home)
        place = runtime_dir() / FOLDER_NAME
        place.mkdir()
        yield place


@pytest.fixture
def warm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zygote]:
    """A zygote that listens; nothing is started by command line unless a test allows it."""
    zygote = Zygote(str(folder), ONLY_THERE="there", **{ENVIRONMENT_VARIABLE: environment_id()})
    monkeypatch.setattr(inspecting, "_COMMAND", ("false",))
    yield zygote
    zygote.close()


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    path = tmp_path / "a.py"
    path.write_text(SPIDER)
    return path


def test_what_it_finds_is_what_a_fresh_process_finds(
    folder: Path, spider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spider.parent)
    (spider.parent / "beside.py").write_text("LIMIT = 3\n")
    spider.write_text(f"import beside\n{SPIDER}    custom_settings = {{'LIMIT': beside.LIMIT}}\n")
    source = Source(entry=str(spider), settings={"LOG_LEVEL": "INFO"})
    fresh = inspect(source)
    zygote = Zygote(str(folder), **{ENVIRONMENT_VARIABLE: environment_id()})
    try:
        monkeypatch.setattr(inspecting, "_COMMAND", ("false",))
        assert inspect(source) == fresh
        assert fresh.modules == ((str(spider.parent), "a"), (str(spider.parent), "beside"))
    finally:
        zygote.close()


def test_it_has_the_folder_variables_umask_and_streams_of_the_sender(
    warm: Zygote, spider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = spider.parent / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setenv("ONLY_HERE", "here")
    monkeypatch.setenv("TMPDIR", str(there))
    spider.write_text(SPIDER + "".join(f"    {line}\n" for line in TOLD.splitlines()))
    before = os.umask(0o027)
    try:
        told = inspect(Source(entry=str(spider))).settings["TOLD"]
    finally:
        os.umask(before)
    assert told == [str(there), "here", None, 0o027, True, "", str(there), []]


def test_mistakes_and_exits_are_told_as_by_a_fresh_process(warm: Zygote, spider: Path) -> None:
    source = Source(entry=str(spider))
    for text, message in (
        ("x = y\n", f"{spider}, line 1: NameError: name 'y' is not defined"),
        (f"{SPIDER}raise SystemExit(3)\n", f"{spider}, line 4: SystemExit: 3"),
        (f"{SPIDER}import os\nos._exit(3)\n", "ended by itself (exit code 3)"),
        (f"{SPIDER}import os\nos.kill(os.getpid(), 9)\n", "ended by itself (exit code -9)"),
    ):
        spider.write_text(text)
        with pytest.raises(ConfigError) as error:
            inspect(source)
        assert message in str(error.value)
    spider.write_text(f"print('noise')\n{SPIDER}")
    assert inspect(source).spider == "a"  # and none of them was left in the zygote


@pytest.mark.parametrize("name", ["PYTHONDONTWRITEBYTECODE", "LC_ALL"])
def test_it_declines_what_only_a_process_that_starts_can_have(
    warm: Zygote, spider: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = Source(entry=str(spider))
    assert inspect(source).spider == "a"
    monkeypatch.setenv(name, "C")
    with pytest.raises(ConfigError, match=r"exit code 1\)"):  # of `false`
        inspect(source)


def test_without_a_warm_process_one_is_started(
    warm: Zygote, folder: Path, spider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder.parents[1]))
    (place,) = addresses(folder, environment_id())
    warm.process.kill()
    warm.process.wait()
    assert place.exists()
    assert inspect(Source(entry=str(spider))).spider == "a"
    # The next zygote clears up.
    second = Zygote(str(folder), **{ENVIRONMENT_VARIABLE: environment_id()})
    assert place not in set(addresses(folder, environment_id()))
    second.close()
    assert list(addresses(folder, environment_id())) == []
    monkeypatch.setattr(warm, "close", warm.socket.close)


def test_it_ends_with_its_sender(warm: Zygote, spider: Path) -> None:
    spider.write_text("import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(600)\n")
    here = Path.cwd() / "here"
    with Inspecting(Source(entry=str(spider))):
        wait_until(here.exists, 10, "user code runs")
        here.unlink()
        (pid,) = [child.pid for child in psutil.Process(warm.process.pid).children()]
    wait_until(lambda: not psutil.pid_exists(pid), 5, "its end")


def test_callers_that_say_nothing_keep_nobody(warm: Zygote, folder: Path, spider: Path) -> None:
    (place,) = addresses(folder, environment_id())
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as wrong:
        silent.connect(str(place))
        wrong.connect(str(place))
        wrong.sendall(b"?" + b"\xff" * 100)
        assert inspect(Source(entry=str(spider))).spider == "a"
        assert place.stat().st_mode & 0o077 == 0
    zygote = psutil.Process(warm.process.pid)
    wait_until(lambda: not zygote.children(), 5, "they have ended")
    assert warm.process.poll() is None


def test_other_environments_do_not_find_it(
    warm: Zygote, spider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id.cache_clear()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "another")
    try:
        with pytest.raises(ConfigError, match=r"exit code 1\)"):
            inspect(Source(entry=str(spider)))
    finally:
        environment_id.cache_clear()
