"""The prompt does the same with the pdb of every Python that there is here."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vscrapy_magic.runtime import prompt

SCRIPT = Path(__file__).parent / "prompt_script.py"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def python(version: str) -> str:
    """Path of a Python of that version."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)
    found = next(map(str, places), None) or shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"no Python {version} here")
    return found


@functools.cache
def transcripts(executable: str, folder: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [executable, str(SCRIPT), prompt.__file__],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
    )
    if "No module named" in done.stderr or "not found" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("child")


@pytest.fixture(params=VERSIONS)
def said(request: pytest.FixtureRequest, folder: Path) -> dict[str, dict[str, Any]]:
    return transcripts(python(request.param), folder)


def test_steps_stay_in_the_users_code(said: dict[str, dict[str, Any]]) -> None:
    steps = said["steps"]
    shown = steps["shown"]
    assert shown.startswith("> Cell In[3](4)parse()\n-> breakpoint()\n(Pdb) ")
    assert "(1, 2)\n" in shown
    assert "> Cell In[3](5)parse()\n-> z = y * 2\n" in shown
    assert "--Call--\n> Cell In[3](8)helper()\n" in shown
    assert "  Cell In[3](6)parse()\n-> w = helper(z)\n> Cell In[3](9)helper()\n" in shown
    assert "(Pdb) 4\n" in shown
    for name in ("steps", "generator", "await", "last line", "cancelled"):
        each = said[name]
        assert each["ends"][-1] == "returned", (name, each)
        assert each["left"] > 0, (name, each)
        assert not each["traced"], (name, each)
    assert (steps["value"], said["generator"]["value"], said["await"]["value"]) == (5, [1, 2], 3)
    assert "(14)generates()\n-> b = 2\n" in said["generator"]["shown"]
    assert "(19)waits()\n-> return 3\n" in said["await"]["shown"]


def test_what_is_typed_changes_what_the_code_does(said: dict[str, dict[str, Any]]) -> None:
    assert said["assigned"]["value"] == 101
    assert "(Pdb) 100\n" in said["assigned"]["shown"]
    assert said["jump"]["shown"].count("-> breakpoint()") == 2  # not twice when stepped to
    assert said["jump"]["value"] == 5
    assert "--Return--" in said["return"]["shown"]
    assert said["return"]["ends"][-1] == "returned"
    assert "(6)parse()" in said["until"]["shown"]


def test_breakpoints_are_found_by_their_line_in_the_cell(said: dict[str, dict[str, Any]]) -> None:
    assert "Breakpoint 1 at Cell In[3]:9\n" in said["break"]["shown"]
    assert "> Cell In[3](9)helper()\n" in said["break"]["shown"]
    assert said["break"]["ends"] == [False, False]


def test_nothing_that_is_typed_ends_the_program(said: dict[str, dict[str, Any]]) -> None:
    for name in ("quit", "end of input", "raised", "interact"):
        each = said[name]
        assert (each["value"], each["traced"]) == (5, False), (name, each)
        assert each["ends"] == [False], (name, each)
    assert said["quit"]["is_left"]
    assert "SystemExit" in said["raised"]["shown"]
    assert "*** not here" in said["raised"]["shown"]
    assert ">>> 41\n" in said["interact"]["shown"]
    assert "ZeroDivisionError" in said["interact"]["shown"]


def test_a_failure_is_looked_at_in_its_frame(said: dict[str, dict[str, Any]]) -> None:
    failed = said["failed"]
    assert '-> return k["x"]\n' in failed["shown"]
    assert "{}\n" in failed["shown"]
    assert failed["ends"] == [False]
