"""Named fail-points: the process that passes the named place is gone, without clean-up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import test_fail_points, test_fail_points_of_cluster, test_fail_points_of_sender
from tests.chaos.deaths import Deaths, name_of, names_in_the_package

CODE = """
import atexit
from vscrapy_magic.failpoints import fail_point
atexit.register(print, "cleaned up")
for n in range(3):
    fail_point("other")
    fail_point("here")
    print(n, flush=True)
"""


def run(fail: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VSCRAPY_FAIL": fail}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_happens_unless_asked_for() -> None:
    assert run("").stdout == "0\n1\n2\ncleaned up\n"
    assert run("elsewhere").returncode == 0


def test_the_nth_pass_kills() -> None:
    for fail, printed in (("here", ""), ("here:3", "0\n1\n")):
        ended = run(fail)
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, printed)


def test_whoever_comes_in_the_stead_of_the_dead_lives_where_one_death_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(tmp_path / "deaths", "here:2", "other")
    for name, value in deaths.environment.items():
        monkeypatch.setenv(name, value)
    assert deaths.missing() == {"here", "other"}
    ended = [run("here:2,other").returncode for _ in range(3)]
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert deaths.missing() == set()
    assert all(deaths.pids().values())


def test_a_process_is_killed_at_every_place_that_the_package_names() -> None:
    killed = (
        *test_fail_points.POINTS,
        *(*test_fail_points_of_cluster.KEEPER, *test_fail_points_of_cluster.BEACON),
        *test_fail_points_of_sender.SENDER,
        *(*test_fail_points_of_sender.FEED, *test_fail_points_of_sender.BEACON),
    )
    named = names_in_the_package()
    assert set(named) == {name_of(point) for point in killed}
    assert [places for places in named.values() if len(places) > 1] == [], "a name for two places"
