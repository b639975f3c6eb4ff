"""What somebody reads in a terminal who does not look at the log."""

import io
import logging

import pytest

from tests.notebook.feeding import CRAWL, view
from vscrapy_magic.sender.follow import SENDER
from vscrapy_magic.sender.terminal import LineFormat, Terminal
from vscrapy_magic.store.keys import WorkerName
from vscrapy_magic.store.logs import LogLine

AWAY = LogLine(0, logging.WARNING, "sender", "the server does not answer", SENDER, "sender")
BACK = LogLine(0, logging.INFO, "sender", "the server answers again", SENDER, "sender")
PAGE = LogLine(0, logging.ERROR, "pages", "no price", WorkerName("w"))


def test_a_problem_with_the_server_is_said_also_without_a_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Terminal(LineFormat(), None, quiet=True).lines([PAGE, AWAY, BACK])
    assert capsys.readouterr().err == "vscrapy: the server does not answer\n"


def test_a_problem_with_the_server_is_said_also_when_the_log_is_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = io.StringIO()
    Terminal(LineFormat(), log).lines([PAGE, AWAY, BACK])
    assert log.getvalue().count("\n") == 3
    assert capsys.readouterr().err == (
        "vscrapy: the server does not answer\nvscrapy: the server answers again\n"
    )


def test_a_wait_is_said_when_it_begins_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(LineFormat(), None)
    for state, why in (("waiting", "no worker takes part"), ("waiting", "no worker takes part")):
        terminal.view(view(state, why=why))
    terminal.view(view("running"))
    terminal.view(view("running"))
    assert capsys.readouterr().err == (
        f"vscrapy: crawl {CRAWL} waits: no worker takes part\n"
        f"vscrapy: crawl {CRAWL} goes on, after 0 s\n"
    )
