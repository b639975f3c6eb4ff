"""The hygiene of all tests can fail: each kind of thing that is left is found, and named."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import hygiene
from tests.conftest import OWN_FOLDER
from tests.store.driver import Child, order, requests
from tests.waiting import wait_until
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import crawl_key, global_key
from vscrapy_magic.store.scratch import Scratch

SOON_S = 0.2
QUICK_S = 0.1  # measured: 10 ms with 60 processes on the machine
ORPHAN = """
import os, subprocess
started = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True)
print(started.pid)
os._exit(0)
"""
LEAVING = """
import tempfile, pytest
from tests import hygiene
hygiene.WITHIN_S = 0.1
@pytest.fixture(scope="session")
def folder():
    return tempfile.mkdtemp(prefix="session-")
def test_that_leaves_nothing(): pass
def test_with_what_the_session_holds(folder): pass
def test_that_leaves_a_folder(): tempfile.mkdtemp(prefix="left-")
def test_that_leaves_a_key(store): store.client.set("vscrapy:unknown", 1)
"""


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Path:
    return request.config.stash[OWN_FOLDER]


@contextmanager
def thread() -> Iterator[str]:
    stop = threading.Event()
    left = threading.Thread(target=stop.wait, name="forgotten")
    left.start()
    yield "threads: forgotten"
    stop.set()
    left.join()


@contextmanager
def process() -> Iterator[str]:
    left = subprocess.Popen(["sleep", "60"])
    yield f"processes: {left.pid} sleep 60"
    left.kill()
    left.wait()


@contextmanager
def zombie() -> Iterator[str]:
    left = subprocess.Popen(["true"])
    wait_until(lambda: psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE, 5)
    yield f"processes: {left.pid} zombie"
    left.wait()


@contextmanager
def orphan() -> Iterator[str]:
    """One that has lost its parent, so that it is no child of this process any more."""
    pid = int(subprocess.check_output([sys.executable, "-c", ORPHAN]))
    yield f"processes: {pid} sleep 60"
    os.kill(pid, signal.SIGKILL)


@contextmanager
def file() -> Iterator[str]:
    with Path(__file__).open() as left:
        yield f"descriptors: {left.fileno()} {__file__}"


@contextmanager
def pipe() -> Iterator[str]:
    fds = os.pipe()
    yield f"descriptors: {fds[1]} pipe:"
    for fd in fds:
        os.close(fd)


@contextmanager
def connection() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as left:
        yield f"descriptors: {left.fileno()} socket:"


@contextmanager
def folder() -> Iterator[str]:
    left = Path(tempfile.mkdtemp())
    yield f"names: {left.name}"
    left.rmdir()


@contextmanager
def bound_socket() -> Iterator[str]:
    path = Path(tempfile.gettempdir()) / "run" / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    yield "names: run/left.sock"
    path.unlink()


@contextmanager
def cluster_folder() -> Iterator[str]:
    path = Path(os.environ["XDG_RUNTIME_DIR"]) / "vscrapy"
    (path / "cluster").mkdir(parents=True)
    (path / "keeper.lock").touch()
    yield "names: run/vscrapy/cluster"
    shutil.rmtree(path)


@contextmanager
def no_spool() -> Iterator[str]:
    path = Path(os.environ["VSCRAPY_SPOOL"])
    for name in ("0a1b2c3d", "0a1b2c3d.new"):
        (path / name).mkdir()
    yield "names: spool/0a1b2c3d.new"
    for name in ("0a1b2c3d", "0a1b2c3d.new"):
        (path / name).rmdir()


@pytest.mark.parametrize(
    "leave",
    [
        *(thread, process, zombie, orphan, file, pipe, connection, folder, bound_socket),
        *(cluster_folder, no_spool),
    ],
)
def test_what_is_left_is_found_and_named(
    leave: Callable[[], "contextmanager[str]"], root: Path
) -> None:
    before = hygiene.look(root)
    with leave() as text:
        found = hygiene.settle(before, root, SOON_S)
        assert any(line.startswith(text) for line in found), found
        kinds = {line.partition(":")[0] for line in found}
        assert kinds == {text.partition(":")[0]}
    assert hygiene.settle(before, root) == []


def test_a_working_folder_in_use_is_left_and_one_of_a_dead_process_is_swept(root: Path) -> None:
    before = hygiene.look(root)
    with Scratch("work") as used:
        dead = Path(tempfile.mkdtemp(prefix="vscrapy-work-"))
        assert hygiene.settle(before, root, SOON_S) == sorted(
            [f"names: {used.path.name}", *_descriptors_of(used.path)]
        )
        assert not dead.exists()


def _descriptors_of(path: Path) -> list[str]:
    found = [fd for fd in Path("/dev/fd").iterdir() if fd.resolve() == path]
    return [f"descriptors: {fd.name} {path}" for fd in found]


def test_what_ends_in_time_is_not_left(root: Path) -> None:
    before = hygiene.look(root)
    started = threading.Thread(target=time.sleep, args=(SOON_S,))
    started.start()
    assert hygiene.settle(before, root) == []
    started.join()


def test_the_fixtures_fail_a_test_that_leaves_something(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa\n")
    (tmp_path / "test_left.py").write_text(LEAVING)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "4 passed, 2 errors" in ended.stdout, ended.stdout + ended.stderr
    assert "names: left-" in ended.stdout
    assert "vscrapy:unknown: no row in keys.py" in ended.stdout
    assert "left at the end of all tests:" in ended.stdout


def test_a_look_is_quick(root: Path) -> None:
    times = []
    for _ in range(5):
        begun = time.monotonic()
        hygiene.look(root)
        times.append(time.monotonic() - begun)
    assert min(times) < QUICK_S


# Keys.


def test_a_crawl_that_runs_or_waits_for_its_sweep_is_accounted_for(store: Store) -> None:
    frontier = order(store)
    child = Child(frontier, "w")
    child.step(requests=requests(range(3)), want=1)
    assert hygiene.unaccounted_keys(store) == []
    store.client.hset(crawl_key(frontier.crawl_id, "meta"), "state", "finished")
    assert hygiene.unaccounted_keys(store) == []


def test_an_ended_crawl_that_was_swept_is_accounted_for(store: Store) -> None:
    frontier = order(store)
    Child(frontier, "w").step(requests=requests(range(3)), want=1)
    Crawls(store).kill(frontier.crawl_id)
    assert hygiene.unaccounted_keys(store) == []


@contextmanager
def key_set(store: Store, key: str) -> Iterator[None]:
    store.client.set(key, 1)
    yield
    store.client.delete(key)


def test_each_kind_of_key_that_is_left_is_found(store: Store) -> None:
    running, over = order(store), order(store)
    Crawls(store).kill(over.crawl_id)
    gone = "0a1b2c3d"
    for key, text in (
        ("foreign", "foreign: no row in keys.py"),
        (global_key("unknown"), "vscrapy:unknown: no row in keys.py"),
        (global_key("wake:w1"), "vscrapy:wake:w1: no time to live"),
        (global_key("bundle:00"), "vscrapy:bundle:00: no time to live"),
        (crawl_key(over.crawl_id, "log"), ": log: the crawl is stopped and swept"),
        (crawl_key(running.crawl_id, "wake:t1"), ": wake:t1: no such member"),
        (crawl_key(running.crawl_id, "l:t1"), ": l:t1: no such member"),
        (crawl_key(running.crawl_id, "p:start"), ": p:start: no such lease"),
        (f"vscrapy:{{{gone}}}:files", f"crawl {gone}: files: the crawl is not there"),
    ):
        assert hygiene.unaccounted_keys(store) == []
        with key_set(store, key):
            found = hygiene.unaccounted_keys(store)
            assert any(text in line for line in found), (key, found)


def test_names_in_indexes_that_lead_nowhere_are_found(store: Store) -> None:
    client = store.client
    client.zadd(global_key("crawls"), {"0a1b2c3d": 1})
    for name in ("workers", "sessions", "sessions:heard"):
        client.hset(global_key(name), "w", "x")
    found = hygiene.unaccounted_keys(store)
    assert [line.partition(": ")[0] for line in found] == [
        *("crawls", "workers", "sessions", "sessions:heard")
    ]
    client.flushall()
