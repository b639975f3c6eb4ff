"""A terminal IPython in this process, fresh for each test."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager

from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets.config import Config

from vscrapy_magic.sender import session


@contextmanager
def fresh_shell() -> Iterator[InteractiveShell]:
    """A shell that keeps nothing on disk, and is gone afterwards."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config)
    try:
        yield shell
    finally:
        session._latest.clear()  # what one kernel has found is no matter of the next one
        atexit.unregister(shell.atexit_operations)
        InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> ExecutionResult:
    """Run a cell as a user would; it must not fail."""
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result
