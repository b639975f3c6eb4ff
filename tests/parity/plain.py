"""Plain Scrapy, many times: `scrapy` in a fork of a process that has imported it.

`python -m tests.parity.plain` reads orders, a line of JSON each: working folder, words, file for
the log; answers with the exit code. What runs is `scrapy.cmdline`, in a process of its own.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Self

_WARM = (
    "scrapy.crawler",
    "scrapy.extensions.feedexport",
    "scrapy.core.engine",
    "scrapy.commands.crawl",
)


class PlainScrapy:
    """The process that forks; `run` may be called from several threads."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.parity.plain"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._answers: dict[str, int] = {}
        self._changed = threading.Condition(self._lock)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def run(self, folder: Path, words: list[str], timeout_s: float) -> tuple[int, str]:
        """The exit code, and what it wrote to its standard error."""
        log = folder / "scrapy.stderr"
        line = json.dumps([str(folder), words, str(log)])
        with self._changed:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            ended = self._changed.wait_for(lambda: str(log) in self._answers, timeout_s)
        text = log.read_text(errors="replace")
        log.unlink()
        return self._answers[str(log)] if ended else -1, text

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            log, code = json.loads(line)
            with self._changed:
                self._answers[log] = code
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def _scrapy(folder: str, words: list[str], log: str) -> Any:
    os.chdir(folder)
    sys.path.insert(0, folder)  # as `scrapy` does for the folder of scrapy.cfg
    sys.argv = ["scrapy", *words]
    null, file = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(file, 2)
    from scrapy.cmdline import execute

    execute()


def _forked(order: tuple[str, list[str], str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    code = 1
    try:
        _scrapy(*order)
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def main() -> None:
    for name in _WARM:
        importlib.import_module(name)
    logs: dict[int, str] = {}

    def ended(*_: object) -> None:
        while logs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            answer = json.dumps([logs.pop(pid), os.waitstatus_to_exitcode(status)])
            os.write(1, f"{answer}\n".encode())

    signal.signal(signal.SIGCHLD, ended)
    for line in sys.stdin:
        order = tuple(json.loads(line))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = _forked(order)
        logs[pid] = order[2]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    while logs:
        signal.pause()


if __name__ == "__main__":
    main()
