"""Owns the local cluster as a sender sees it: one server and warm workers, shared by all of a user.

Runs in the sender's process, which only asks: the cluster belongs to a keeper (`store/keeper.py`),
a process of its own that the first sender starts and that ends by itself. Two senders that come at
once share one, because a file is locked while a keeper is started.
"""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.config import check_platform, runtime_dir
from vscrapy_magic.errors import ConfigError, ServerStartError
from vscrapy_magic.sender.inspecting import FOLDER_NAME
from vscrapy_magic.store.crews import COUNT_FIELD, NAME_FIELD, URL_FIELD, Answer, Call
from vscrapy_magic.store.environment import ENVIRONMENT_VARIABLE, environment_id, helper_variables
from vscrapy_magic.store.keeper import READY, SOCKET_NAME

WORKERS_VARIABLE: Final = "VSCRAPY_LOCAL_WORKERS"
WORKERS_MIN: Final = 2  # one shows nothing of what several do
WORKERS_MAX: Final = 4  # more are asked for by number
ANSWER_WITHIN_S: Final = 30.0  # a server that reads a large file takes a while
_LOCK_NAME: Final = "cluster.lock"
_ATTEMPTS: Final = 5  # a keeper may end just when it is asked, or be killed while it starts
# -P: the folder of whoever asks must not hide modules of this package.
_KEEPER: Final = (sys.executable, "-P", "-m", "vscrapy_magic.store.keeper")
_WORKERS: Final = (
    *(sys.executable, "-P", "-m", "vscrapy_magic.worker", URL_FIELD, "--name", NAME_FIELD),
    *("-n", COUNT_FIELD, "--with-parent", "--log-level", "WARNING"),
)


class LocalCluster:
    """The cluster of this user on this machine; nothing to hold, and safe from any thread."""

    @staticmethod
    def ensure(workers: int | None = None) -> str:
        """The address of the user's server, started when it does not run, with workers on the way.

        Blocks until the server answers (about 0.3 s when nothing runs); workers come up meanwhile.
        They are of this process's environment. Idempotent: whatever was killed is there again.

        Args:
            workers: at least so many; None: `VSCRAPY_LOCAL_WORKERS`, else one per core, 2 to 4.

        Raises:
            ConfigError: not on this system, or not so many workers.
            ServerStartError: it cannot be started; the message says why.
        """
        check_platform()
        count = _default_count() if workers is None else workers
        if count < 1:
            raise ConfigError(f"{count} workers: at least one is needed")
        call = Call(
            pid=os.getpid(),
            environment=environment_id(),
            command=(*_WORKERS, "--inspect-in", str(_folder())),
            count=count,
            variables=helper_variables() | {ENVIRONMENT_VARIABLE: environment_id()},
        )
        for _ in range(_ATTEMPTS):
            answer = _ask(call)
            if answer is None:
                _start_keeper()
            else:
                return answer.url
        raise ServerStartError(
            f"the local cluster in {_folder()} ends as soon as it is started: see {_folder()}/log"
        )

    @staticmethod
    def running() -> str | None:
        """The address of the user's server if the cluster runs; starts nothing."""
        answer = _ask(Call(pid=os.getpid()))
        return answer.url if answer is not None else None

    @staticmethod
    def url() -> str:
        """The address that the user's server has when it runs."""
        return f"unix://{_folder() / 'server' / 'valkey.sock'}"


def _folder() -> Path:
    return runtime_dir() / FOLDER_NAME


def _default_count() -> int:
    given = os.environ.get(WORKERS_VARIABLE, "")
    if given and not given.isdecimal():
        raise ConfigError(f"{WORKERS_VARIABLE}={given}: a number of workers is needed")
    cores = os.cpu_count() or WORKERS_MIN
    return int(given) if given else max(WORKERS_MIN, min(cores, WORKERS_MAX))


def _ask(call: Call) -> Answer | None:
    """What the keeper answers; None when there is none, or it ends just now."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_WITHIN_S)
        try:
            connection.connect(str(_folder() / SOCKET_NAME))
            connection.sendall(msgspec.json.encode(call) + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
        except TimeoutError as exc:
            raise ServerStartError(
                f"the local cluster in {_folder()} did not answer within {ANSWER_WITHIN_S:.0f} s: "
                f"see {_folder()}/log"
            ) from exc
        except OSError:
            return None
    return msgspec.json.decode(line, type=Answer) if line else None


@contextmanager
def _starting() -> Iterator[None]:
    """Only one process of this user starts a keeper at a time."""
    with (runtime_dir() / _LOCK_NAME).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start_keeper() -> None:
    """See that a keeper answers calls; one that was killed meanwhile is found by the next call.

    Raises:
        ServerStartError: it cannot be started.
    """
    with _starting():
        if LocalCluster.running() is not None:
            return  # another sender was faster
        try:
            started = subprocess.run(
                [*_KEEPER, str(_folder())],
                cwd="/",
                env=helper_variables(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ANSWER_WITHIN_S,  # for a keeper that is just ending
                start_new_session=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ServerStartError(f"the local cluster cannot be started: {exc}") from exc
    said = (started.stdout or started.stderr).decode(errors="replace").strip().splitlines()
    if said and READY not in started.stdout:
        raise ServerStartError(f"the local cluster cannot be started: {said[-1]}")
