"""The source of cells: kept as typed, run at its true lines."""

from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.notebook.shell import fresh_shell, run
from vscrapy_magic.notebook.cells import CellLog


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    with fresh_shell() as running:
        yield running


@pytest.fixture
def log(shell: InteractiveShell) -> Iterator[CellLog]:
    kept = CellLog(shell)
    shell.register_magic_function(
        lambda line, cell: kept.run_body(cell), magic_kind="cell", magic_name="vcrawl"
    )
    yield kept
    kept.close()


def test_cells_are_kept_with_their_number(shell: InteractiveShell, log: CellLog) -> None:
    run(shell, "x = 1")
    run(shell, "%time y = 2\nz = 3")
    (first, second) = log.cells
    assert (first.label, first.source) == ("Cell In[1]", "x = 1\n")
    assert second.label == "Cell In[2]"
    assert second.source.splitlines()[1] == "z = 3"


def test_cells_that_ran_before_are_found_in_the_history(shell: InteractiveShell) -> None:
    run(shell, "def f():\n    return 1")
    log = CellLog(shell)
    assert [(cell.label, "def f" in cell.source) for cell in log.cells] == [("Cell In[1]", True)]
    log.close()


def test_the_body_of_a_magic_runs_in_the_users_namespace(
    shell: InteractiveShell, log: CellLog
) -> None:
    run(shell, "%%vcrawl quotes\nx = 5")
    assert shell.user_ns["x"] == 5
    (cell,) = log.cells
    assert (cell.label, cell.first_line) == ("Cell In[1]", 2)


def test_errors_in_a_body_name_the_true_line(
    shell: InteractiveShell, log: CellLog, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("\n\n%%vcrawl quotes\nx = 1\ny = 1 / 0\n", store_history=True)
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert log.cells[0].first_line == 4
    cell = "%%vcrawl quotes\nx = 1\nclass A:\n    def f(self): return 1/0\nA().f()"
    result = shell.run_cell(cell, store_history=True)
    error = result.error_in_exec
    assert error is not None
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace.tb_lineno == 4


def test_a_body_may_await(shell: InteractiveShell, log: CellLog) -> None:
    run(
        shell,
        "%%vcrawl quotes\nimport asyncio\nawait asyncio.sleep(0)\nx = await asyncio.sleep(0, 7)",
    )
    assert shell.user_ns["x"] == 7
    assert len(log.cells) == 1


def test_bodies_of_other_magics_are_kept(shell: InteractiveShell, log: CellLog) -> None:
    run(shell, "%%time\nclass Helper:\n    pass")
    run(shell, "%%capture out\nx = 1")
    assert [(c.source, c.first_line) for c in log.cells] == [
        ("class Helper:\n    pass\n", 2),
        ("x = 1\n", 2),
    ]
