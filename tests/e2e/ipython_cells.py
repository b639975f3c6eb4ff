"""Runs cells in IPython's own shell and ships what they define; a process of its own.

Reads [cells of one notebook, ...] as JSON, writes the encoded bundles as one msgpack list.
"""

import sys
from pathlib import Path

import msgspec
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from vscrapy_magic.sender.bundle import Cell, ship_class
from vscrapy_magic.store.messages import encode


def shipped(shell: InteractiveShell, cells: list[str]) -> bytes:
    shell.reset(new_session=True)
    ran = []
    for source in cells:
        ran.append(Cell(f"Cell In[{shell.execution_count}]", shell.transform_cell(source)))
        shell.run_cell(source, store_history=True).raise_error()
    kind = shell.user_ns["Q"]
    return encode(ship_class(kind, ran, shell.user_ns, folder=Path.cwd()).bundle)


def main() -> None:
    config = Config()
    config.HistoryManager.enabled = False
    said, sys.stdout = sys.stdout, sys.stderr
    shell = InteractiveShell.instance(config=config)
    notebooks = msgspec.json.decode(sys.stdin.buffer.read(), type=list[list[str]])
    bundles = [shipped(shell, cells) for cells in notebooks]
    said.buffer.write(msgspec.msgpack.encode(bundles))


main()
