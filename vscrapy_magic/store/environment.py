"""Owns the name of an environment: what a spider finds when it runs with this interpreter.

Used by senders (a crawl on the local cluster wants workers of its notebook's environment) and by
workers. The name is made once per process: packages installed later do not change it, because the
workers of that name begin to use them by themselves (a zygote whose packages changed is replaced).
"""

import functools
import hashlib
import importlib.util
import os
import platform
import site
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from vscrapy_magic.config import URL_VARIABLE
from vscrapy_magic.version import __version__

# Set by who starts a worker, so that worker and crawl agree whatever was installed in between.
ENVIRONMENT_VARIABLE: Final = "VSCRAPY_ENVIRONMENT"
_ID_CHARS: Final = 12
_PATH_VARIABLE: Final = "PYTHONPATH"


@functools.cache
def environment_id() -> str:
    """The name of this process's environment; the same for all processes that find the same code.

    Made of the interpreter's prefix and version, the versions of Scrapy and of this package, where
    this package is, when packages were last installed, and `PYTHONPATH`.
    """
    if given := os.environ.get(ENVIRONMENT_VARIABLE, ""):
        return given
    spec = importlib.util.find_spec("vscrapy_magic")
    facts = (
        *(sys.prefix, platform.python_version(), __version__, _scrapy_version()),
        *(str(spec.origin) if spec else "", _python_path(), *_packages_changed_at()),
    )
    return hashlib.sha256("\0".join(map(str, facts)).encode()).hexdigest()[:_ID_CHARS]


def helper_variables() -> dict[str, str]:
    """Environment variables for processes that outlive us or serve others, in the root folder.

    All of ours, because spiders read them, but no address of a Redis: it may hold a password.
    """
    kept = {name: text for name, text in os.environ.items() if name != URL_VARIABLE}
    if path := _python_path():
        kept[_PATH_VARIABLE] = path
    return kept


def _python_path() -> str:
    """`PYTHONPATH` with absolute folders: the same from wherever a process is started."""
    folders = os.environ.get(_PATH_VARIABLE, "").split(os.pathsep)
    return os.pathsep.join(str(Path(folder).absolute()) for folder in folders if folder)


def _packages_changed_at() -> tuple[int, ...]:
    """When packages were last installed or removed here; nanoseconds, one for each folder."""
    times = []
    for folder in sorted({*site.getsitepackages(), site.getusersitepackages()}):
        try:
            times.append(Path(folder).stat().st_mtime_ns)
        except OSError:
            times.append(0)
    return tuple(times)


def _scrapy_version() -> str:
    try:
        return metadata.version("scrapy")
    except metadata.PackageNotFoundError:
        return ""
