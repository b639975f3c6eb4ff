"""Working folders: removed by their owner, or by whoever comes after its death; nothing else is."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vscrapy_magic.store import scratch
from vscrapy_magic.store.scratch import Scratch, hold, sweep

OWNER = """
import sys
from vscrapy_magic.store.scratch import Scratch
scratch = Scratch("work")
(scratch.path / "child").mkdir()
(scratch.path / "child" / "page.html").write_text("x")
print(scratch.path, flush=True)
sys.stdin.read()
scratch.close()
"""
CHILD = """
import sys
from pathlib import Path
from vscrapy_magic.store.scratch import hold
assert hold(Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


class Process:
    """Python code that prints a line when it is ready, and ends with its standard input."""

    def __init__(self, program: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline().strip()

    def end(self, number: int | None = None) -> None:
        if number is not None:
            self._process.send_signal(number)
        with self._process:
            pass


@pytest.fixture
def owner() -> Iterator[Process]:
    process = Process(OWNER)
    yield process
    process.end()


def look_alike(temporary: Path, name: str = "vscrapy-work-abcd1234") -> Path:
    path = temporary / name
    path.mkdir(mode=0o700)
    (path / "kept").touch()
    return path


def test_a_folder_goes_with_its_owner(temporary: Path) -> None:
    with Scratch("feeds") as own:
        (own.path / "file").touch()
        assert own.path.parent == temporary
        assert own.path.stat().st_mode & 0o777 == 0o700
    assert not list(temporary.iterdir())
    own.close()


def test_the_folder_of_a_killed_process_is_swept_by_whoever_comes_next(
    owner: Process, temporary: Path
) -> None:
    folder = Path(owner.said)
    assert sweep() == []
    assert (folder / "child" / "page.html").exists()
    owner.end(signal.SIGKILL)
    assert sweep() == [folder]
    assert not list(temporary.iterdir())


def test_a_folder_that_a_process_of_the_dead_owner_still_uses_stays(owner: Process) -> None:
    folder = Path(owner.said)
    child = Process(CHILD, owner.said)
    owner.end(signal.SIGKILL)
    assert sweep() == []
    assert folder.exists()
    child.end()
    assert sweep() == [folder]


def test_two_alive_do_not_remove_each_others(owner: Process) -> None:
    with Scratch("work") as own:
        other = Process("from vscrapy_magic.store.scratch import sweep; print(len(sweep()))")
        other.end()
        assert other.said == "0"
        assert sweep() == []
        assert own.path.exists()
        assert Path(owner.said).exists()


@pytest.mark.parametrize(
    "name",
    [
        *("vscrapy-work-abc", "vscrapy-work-abcd12345", "vscrapy-work-ABCD1234", "vscrapy-0"),
        *("vscrapy-other-abcd1234", "xvscrapy-work-abcd1234", "vscrapy-work-abcd123.", "vscrapy"),
    ],
)
def test_a_folder_with_another_name_stays(temporary: Path, name: str) -> None:
    folder = look_alike(temporary, name)
    assert sweep() == []
    assert (folder / "kept").exists()


def test_a_folder_of_our_name_that_is_in_nobodys_use_goes(temporary: Path) -> None:
    folder = look_alike(temporary)  # its maker was killed before it had the lock
    assert sweep() == [folder]


def test_a_folder_that_others_may_enter_stays(temporary: Path) -> None:
    folder = look_alike(temporary)
    folder.chmod(0o755)
    assert sweep() == []
    assert (folder / "kept").exists()


def test_a_folder_of_another_user_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = look_alike(temporary)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert sweep() == []
    assert (folder / "kept").exists()


def test_a_link_of_our_name_stays_and_so_does_what_it_leads_to(
    temporary: Path, tmp_path: Path
) -> None:
    target = look_alike(tmp_path, "target")
    (temporary / "vscrapy-work-abcd1234").symlink_to(target)
    assert sweep() == []
    assert (target / "kept").exists()
    assert (temporary / "vscrapy-work-abcd1234").is_symlink()


def test_links_within_a_swept_folder_are_removed_and_not_followed(
    temporary: Path, tmp_path: Path
) -> None:
    target, folder = look_alike(tmp_path, "target"), look_alike(temporary)
    (folder / "link").symlink_to(target)
    assert sweep() == [folder]
    assert (target / "kept").exists()


def test_a_file_of_our_name_stays(temporary: Path) -> None:
    (temporary / "vscrapy-work-abcd1234").touch()
    assert sweep() == []
    assert (temporary / "vscrapy-work-abcd1234").exists()


def test_one_that_is_swept_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def make_and_lose(prefix: str) -> str:
        made.append(make(prefix=prefix))
        if len(made) < 3:
            assert sweep() == [Path(made[-1])]
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with Scratch("work") as own:
        assert [str(own.path)] == made[2:]
        assert sweep() == []


def test_one_that_is_swept_between_opening_and_locking_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, calls = scratch.fcntl.flock, []

    def late(fd: int, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            assert len(sweep()) == 1
        lock(fd, how)

    monkeypatch.setattr(scratch.fcntl, "flock", late)
    with Scratch("work") as own:
        assert own.path.exists()
    assert len(calls) > 2


def test_where_there_are_no_locks_folders_work_and_nothing_is_swept(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(scratch.fcntl, "flock", refuse)
    folder = look_alike(temporary)
    with Scratch("work") as own:
        assert own.path.exists()
        assert sweep() == []
    assert folder.exists()


def test_who_is_given_another_folder_holds_nothing(temporary: Path) -> None:
    assert not hold(temporary)
    assert not hold(temporary / "vscrapy-work-abcd1234")


def test_a_lock_is_not_inherited_by_started_processes(temporary: Path) -> None:
    with Scratch("work") as own:
        started = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        os.close(own._fd or -1)
        assert sweep() == [own.path]
        own._fd = None
        with started:
            pass
