"""Owns how Lua scripts get from `lua/*.lua` to the server; any process with a store."""

import functools
import hashlib
import re
from importlib import resources
from typing import Final

import msgspec

_INCLUDE: Final = re.compile(r"^--!include (\w+)[ \t]*$", re.MULTILINE)


class Script(msgspec.Struct, frozen=True):
    """One Lua script, complete.

    Attributes:
        sha1: the name by which the server's script cache knows it.
    """

    name: str
    source: str
    sha1: str


@functools.cache
def load_script(name: str) -> Script:
    """The script `lua/<name>.lua`; each line `--!include OTHER` is replaced by `lua/<OTHER>.lua`.

    Included files include nothing themselves. Read once per process; thread-safe.
    """
    source = _INCLUDE.sub(lambda line: _read(line[1]), _read(name))
    # The server names scripts by SHA-1; nothing is protected by it.
    sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha1)


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
