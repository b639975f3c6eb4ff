"""Owns the reading of a spider's source by another process, from its start to what it found.

Runs in the sender's process, which does not import the user's code. Begins before the sender has
imported what it needs itself, so little is imported here. Where the local cluster runs with workers
of this environment, a process forked from their zygote reads the source: it has Scrapy already,
which takes longer to import than all the rest. Otherwise, and whenever that one declines, a process
started by command line does (`runtime/inspect.py`); both find the same.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from vscrapy_magic.config import runtime_dir
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.options import CrawlOptions, nearest
from vscrapy_magic.store.environment import environment_id
from vscrapy_magic.store.inquiry import Inquiry, addresses, greet
from vscrapy_magic.store.inspection import Inspection, Source

INSPECT_TIMEOUT_S: Final = 120.0  # for imports of the user's code
FOLDER_NAME: Final = "cluster"  # of the local cluster, in the user's folder for sockets
_EXIT_CODE: Final = re.compile(rb"-?\d+")
_CONNECT_WITHIN_S: Final = 0.5  # a zygote that is stopped, or has too many callers
# -P: the user's folder is the working folder, and must not hide modules of this package.
_COMMAND: Final = (sys.executable, "-P", "-m", "vscrapy_magic.runtime.inspect")


class Inspecting:
    """One reading of a source that is under way; a context manager, which ends it."""

    def __init__(self, source: Source, *, folder: Path | None = None) -> None:
        """Begin.

        Args:
            folder: the working folder that it is read in; None: this process's.
        """
        self.source: Final = source
        self._folder: Final = folder or Path.cwd()
        self._name = source.entry or source.spider
        self._connection = _ask_warm(source, self._folder)
        self._process = None if self._connection else _start(source, self._folder)

    def result(self) -> Inspection:
        """What the spider's source says; waits for it, and can be asked once.

        Raises:
            ConfigError: it cannot be run; one line, with file and line or the nearest name.
        """
        if self._connection is not None:
            answer, code = self._hear_warm(self._connection)
        else:
            answer, code = self._hear(self._process or _start(self.source, self._folder))
        if not answer:
            raise ConfigError(
                f"{self._name}: the process that imports it ended by itself (exit code {code}); "
                "see above, or import it with `python`"
            )
        found = msgspec.json.decode(answer, type=Inspection)
        if found.error:
            raise ConfigError(found.error + _hint(self.source, found.names))
        return found

    def _hear_warm(self, connection: socket.socket) -> tuple[bytes, int]:
        try:
            with connection.makefile("rb") as file:
                answer = file.readline().rstrip()
        except TimeoutError as exc:
            raise self._too_slow() from exc
        except OSError:
            answer = b""
        if answer.startswith(b"{"):
            return answer, 0
        if _EXIT_CODE.fullmatch(answer):
            return b"", int(answer)
        # Its zygote is gone, or it cannot be what a fresh process would be.
        self._process = _start(self.source, self._folder)
        return self._hear(self._process)

    def _hear(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, int]:
        try:
            answer, _ = process.communicate(timeout=INSPECT_TIMEOUT_S)
        except subprocess.TimeoutExpired as exc:
            raise self._too_slow() from exc
        return answer, process.returncode

    def _too_slow(self) -> ConfigError:
        return ConfigError(
            f"{self._name}: it was not imported within {INSPECT_TIMEOUT_S:.0f} s; what does it do?"
        )

    def close(self) -> None:
        """End it when it still runs. Idempotent."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            with self._process as process:
                process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inspect(source: Source) -> Inspection:
    """What the spider's source says; imports the user's code in a process of its own.

    Raises:
        ConfigError: it cannot be run; one line, with file and line or the nearest name.
    """
    with Inspecting(source) as inspecting:
        return inspecting.result()


def file_source(options: CrawlOptions) -> Source:
    """The spider's file that was named.

    Raises:
        ConfigError: it cannot be read; one line, with the nearest name in its folder.
    """
    return _source(options, entry=str(spider_file(options.target).resolve()))


def project_source(options: CrawlOptions) -> Source:
    """The spider that was named, in the project around the working folder."""
    return _source(options, spider=options.target)


def _source(options: CrawlOptions, *, entry: str = "", spider: str = "") -> Source:
    return Source(
        entry=entry,
        spider=spider,
        settings=options.cmdline_settings(),
        args=options.args,
        output=options.output,
        overwrite=options.overwrite,
    )


def spider_file(name: str) -> Path:
    """The path of a spider's file, when there is one.

    Raises:
        ConfigError: there is none; one line, with the nearest name in its folder.
    """
    path = Path(name)
    if path.suffix not in {".py", ".pyw"}:
        raise ConfigError(f"{path}: a spider file ends in .py")
    try:
        with path.open("rb"):
            return path
    except OSError as exc:
        beside = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = nearest(path.name, beside)
        hint = f"; did you mean {path.parent / close}?" if close else ""
        raise ConfigError(f"{path}: {exc.strerror}{hint}") from exc


def _hint(source: Source, names: Sequence[str]) -> str:
    if not names:
        return ""
    close = nearest(source.spider, names)
    return f"; did you mean {close!r}?" if close else f"; there is {', '.join(names)}"


def _start(source: Source, folder: Path) -> "subprocess.Popen[bytes]":
    """A process that imports Scrapy and then the source."""
    with tempfile.TemporaryFile() as order:  # without a name; a pipe could be too small
        order.write(msgspec.json.encode(source))
        order.seek(0)
        return subprocess.Popen(_COMMAND, stdin=order, stdout=subprocess.PIPE, cwd=folder)


def _ask_warm(source: Source, folder: Path) -> socket.socket | None:
    """A connection to a warm process that reads the source; None when there is none."""
    try:
        places = list(addresses(runtime_dir() / FOLDER_NAME, environment_id()))
    except ConfigError:
        return None  # who uses another Redis needs no such folder
    if not places:
        return None
    umask = os.umask(0)
    os.umask(umask)
    inquiry = Inquiry(source=source, folder=str(folder), variables=dict(os.environ), umask=umask)
    for place in places:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_CONNECT_WITHIN_S)
        try:
            connection.connect(str(place))
            greet(connection, inquiry, sys.stderr.fileno())
        except (OSError, ValueError):  # gone; or here is no standard error, as in a notebook
            connection.close()
        else:
            connection.settimeout(INSPECT_TIMEOUT_S)
            return connection
    return None
