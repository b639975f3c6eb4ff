"""The zygote by itself, as a supervisor speaks with it: forks, exits, and what it refuses."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.waiting import wait_until
from vscrapy_magic.store.keys import CrawlId, MemberToken, WorkerName
from vscrapy_magic.store.messages import ChildOrder
from vscrapy_magic.store.pipes import (
    FORK_FDS,
    ZYGOTE_BYTES,
    Answer,
    Ask,
    ExitCode,
    FrameReader,
    FromZygote,
    Mark,
    Report,
    ToZygote,
    read_report,
)

ANSWER_S = 20


class Zygote:
    """A zygote and our end of its socket."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(ANSWER_S)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "vscrapy_magic.runtime.zygote"),
                    *(str(theirs.fileno()), *words),
                ],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **environment},
            )
        self.fds: dict[str, int] = {}
        self.first = self.answer()

    def fork(self, url: str, folder: Path) -> None:
        order = ChildOrder(
            crawl_id=CrawlId("none"),
            token=MemberToken("t"),
            worker=WorkerName("w"),
            url=url,
            folder=str(folder),
        )
        pipes = [os.pipe() for _ in range(4)]
        far = [pipes[0][0], *(write for _, write in pipes[1:]), Mark.create()]
        message = msgspec.msgpack.encode(ToZygote(Ask.FORK, number=7, order=order))
        socket.send_fds(self.socket, [message], far)
        for fd in far:
            os.close(fd)
        near = [pipes[0][1], *(read for read, _ in pipes[1:])]
        self.fds = dict(zip(FORK_FDS, near, strict=False))

    def answer(self) -> FromZygote:
        return msgspec.msgpack.decode(self.socket.recv(ZYGOTE_BYTES), type=FromZygote)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.socket.close()
        assert self.process.wait(ANSWER_S) == 0


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    assert running.first.answer is Answer.READY
    yield running
    running.close()


def read_all(fd: int) -> bytes:
    return b"".join(iter(lambda: os.read(fd, 65536), b""))


def test_forked_child_says_why_it_ends_and_its_exit_is_told(
    zygote: Zygote, tmp_path: Path, server: Any
) -> None:
    zygote.fork(f"unix://{tmp_path}/nothing.sock", tmp_path)
    forked = zygote.answer()
    assert (forked.answer, forked.number) == (Answer.FORKED, 7)
    reports = [read_report(body) for body in FrameReader().feed(read_all(zygote.fds["report"]))]
    assert [r.report for r in reports] == [Report.PHASE, Report.FATAL]
    assert reports[0].number == forked.pid
    assert "does not answer" in reports[1].text
    exited = zygote.answer()
    assert (exited.answer, exited.pid) == (Answer.EXITED, forked.pid)
    assert exited.code == ExitCode.STORE_LOST
    # Its process id is nobody else's until we say so.
    assert psutil.Process(forked.pid).status() == psutil.STATUS_ZOMBIE
    zygote.socket.send(msgspec.msgpack.encode(ToZygote(Ask.REAP, number=forked.pid)))
    wait_until(lambda: not psutil.pid_exists(forked.pid), 5, "reaped")


def test_messages_that_it_does_not_know_are_skipped(zygote: Zygote, tmp_path: Path) -> None:
    zygote.socket.send(msgspec.msgpack.encode({"ask": "dance", "number": 1}))
    zygote.socket.send(b"\xc1")
    zygote.fork(f"unix://{tmp_path}/nothing.sock", tmp_path)
    assert zygote.answer().answer is Answer.FORKED
    assert zygote.answer().answer is Answer.EXITED


def test_a_killed_child_is_told_with_its_signal(zygote: Zygote, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(f"{tmp_path}/s")
        listening.listen()  # and never answers
        zygote.fork(f"unix://{tmp_path}/s", tmp_path)
        pid = zygote.answer().pid
        wait_until(lambda: os.getsid(pid) == pid, 5, "a session of its own")
        os.kill(pid, signal.SIGKILL)
        assert zygote.answer().code == -signal.SIGKILL


def test_it_has_one_thread_and_no_reactor_and_refuses_otherwise(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    zygote = Zygote(PYTHONPATH=str(tmp_path))
    try:
        zygote.fork(f"unix://{tmp_path}/nothing.sock", tmp_path)
        for refused, number in ((zygote.first, 0), (zygote.answer(), 7)):
            assert (refused.answer, refused.number) == (Answer.REFUSED, number)
            assert "2 threads" in refused.text
    finally:
        zygote.close()


def test_warming_up_installs_no_reactor_and_starts_no_thread() -> None:
    code = (
        "from vscrapy_magic.runtime.zygote import prepare, unsafe\n"
        "import sys; prepare(); print(unsafe()); print('scrapy.core.downloader.handlers.http11' in"
        " sys.modules)\n"
        "import twisted.internet.reactor; print(unsafe())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout.splitlines()[:2] == ["", "True"]
    assert "has a reactor" in said.stdout
    assert said.stderr == ""


def test_what_cannot_be_imported_is_told_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['scrapy'] = None\n")
    zygote = Zygote(PYTHONPATH=str(tmp_path))
    assert zygote.first.answer is Answer.FAILED
    assert zygote.first.text.startswith("Traceback ")
    assert zygote.first.text.splitlines()[-1].startswith("ModuleNotFoundError: import of scrapy")
    zygote.socket.close()
    assert zygote.process.wait(ANSWER_S) == 71


def test_a_child_does_not_import_what_is_off_in_it(zygote: Zygote) -> None:
    maps = Path(f"/proc/{zygote.process.pid}/maps").read_text()
    assert "lxml" in maps
    assert "aiohttp" not in maps
