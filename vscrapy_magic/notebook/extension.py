"""Owns what `%load_ext vscrapy_magic` does: little, so that it takes milliseconds.

Runs in the kernel's main thread. The magics' own module imports the driver of Redis and half of
this package; until one of them is used, stand-ins answer to their names. Cells are noted from now
on.
"""

from collections.abc import Callable
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from vscrapy_magic.config import check_platform
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.cells import CellLog
from vscrapy_magic.notebook.interrupts import UsageError

LINE_MAGICS: Final = (
    *("vconnect", "vcrawl", "verrors", "vitems", "vlist", "vlogs", "vpanel", "vpush", "vset"),
    *("vstop", "vworkers"),
)
CELL_MAGICS: Final = ("vcrawl",)
_NOTED: Final = "_vscrapy_cells"  # attribute of the shell


def load(shell: InteractiveShell) -> None:
    """Make the magics known; nothing is connected or started. Idempotent.

    Raises:
        UsageError: this is Windows; the message says what to do.
    """
    try:
        check_platform()
    except ConfigError as exc:
        raise UsageError(str(exc)) from None
    if hasattr(shell, _NOTED):
        return
    setattr(shell, _NOTED, CellLog(shell))
    for name in LINE_MAGICS:
        _register(shell, "line", name)
    for name in CELL_MAGICS:
        _register(shell, "cell", name)


def _register(shell: InteractiveShell, kind: str, name: str) -> None:
    register: Callable[..., None] = shell.register_magic_function
    register(_stand_in(shell, kind, name), magic_kind=kind, magic_name=name)


def unload(shell: InteractiveShell) -> None:
    """End the session; the magics connect again when they are used."""
    magics = shell.magics_manager.registry.get("VscrapyMagics")
    if magics is not None:
        magics.kernel.disconnect()


def _stand_in(shell: InteractiveShell, kind: str, name: str) -> Callable[..., Any]:
    def run(*words: str) -> Any:
        from vscrapy_magic.notebook.magics import VscrapyMagics

        if "VscrapyMagics" not in shell.magics_manager.registry:
            shell.register_magics(VscrapyMagics(shell, getattr(shell, _NOTED)))
        return shell.find_magic(name, kind)(*words)

    run.__name__ = name
    run.__doc__ = f"See `%{name} --help`."
    return run
