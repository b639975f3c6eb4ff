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
from vscrapy_magic.sender.cells import set_source

LINE_MAGICS: Final = (
    *("vbreak", "vconnect", "vcrawl", "vdebug", "verrors", "vfetch", "vitems", "vlist", "vlogs"),
    *("vpanel", "vpatch", "vpush", "vreplay", "vretry", "vset", "vstop", "vview", "vworkers"),
)
CELL_MAGICS: Final = ("vcrawl",)
# Attributes of the shell.
_NOTED: Final = "_vscrapy_cells"
_LOADED: Final = "_vscrapy_loaded"


def load(shell: InteractiveShell) -> None:
    """Make the magics known; nothing is connected or started. Idempotent.

    Raises:
        UsageError: this is Windows; the message says what to do.
    """
    try:
        check_platform()
    except ConfigError as exc:
        raise UsageError(str(exc)) from None
    note_cells(shell)
    if getattr(shell, _LOADED, False):
        return
    setattr(shell, _LOADED, True)
    for name in LINE_MAGICS:
        _register(shell, "line", name)
    for name in CELL_MAGICS:
        _register(shell, "cell", name)


def note_cells(shell: InteractiveShell) -> None:
    """Note what this shell runs from now on, for whoever ships a class of it. Idempotent."""
    if not hasattr(shell, _NOTED):
        cells = CellLog(shell)
        setattr(shell, _NOTED, cells)
        set_source(lambda: (cells.cells, shell.user_ns))


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
