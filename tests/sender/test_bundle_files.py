"""A spider file travels with what it imports and names from beside it."""

import os
import sys
import traceback
from pathlib import Path

import pytest

from tests.cells import loaded
from vscrapy_magic.sender.bundle import ship_file

SPIDER = """import scrapy
import mine_h
from mine_k.one import f

class Q(scrapy.Spider):
    name = "q"
    def parse(self, response):
        return open("rows.csv").read() + f() + mine_h.fail()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    (made / "mine_k").mkdir(parents=True)
    files = {
        "quotes.py": SPIDER,
        "mine_h.py": "def fail():\n    raise ValueError('here')\n",
        "rows.csv": "a",
        "other.csv": "b",
        "unused.py": "x = 1",
        "mine_k/__init__.py": "",
        "mine_k/one.py": "from . import two\ndef f():\n    return two.N\n",
        "mine_k/two.py": "N = 'n'\n",
        "mine_k/three.py": "N = 3\n",
    }
    for name, text in files.items():
        (made / name).write_text(text)
    return made


def test_modules_and_named_files_travel_and_no_others(folder: Path) -> None:
    assert sorted(ship_file(folder / "quotes.py").bundle.files) == [
        *("mine_h.py", "mine_k/__init__.py", "mine_k/one.py", "mine_k/two.py"),
        *("quotes.py", "rows.csv"),
    ]


def test_given_files_travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shipped = ship_file(Path("quotes.py"), files=[Path("other.csv")], env={"A": "1"})
    assert shipped.bundle.files["other.csv"] == b"b"
    assert shipped.bundle.entry == "quotes.py"
    assert shipped.bundle.env == {"A": "1"}


def test_a_symbolic_link_is_read_where_it_leads(folder: Path) -> None:
    (folder / "linked").mkdir()
    (folder / "linked" / "spider.py").symlink_to(folder / "quotes.py")
    shipped = ship_file(folder / "linked" / "spider.py")
    assert shipped.bundle.files["spider.py"] == SPIDER.encode()


def test_tracebacks_name_files_and_not_the_child_s_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    with loaded(ship_file(folder / "quotes.py").bundle, child) as names:
        monkeypatch.chdir(child)
        with pytest.raises(ValueError, match="here") as caught:
            names["Q"]().parse(None)
        text = "".join(traceback.format_exception(caught.value))
        assert sys.modules["mine_h"].__file__ == os.fspath(child / "mine_h.py")
    assert 'File "quotes.py", line 8, in parse\n    return open("rows.csv")' in text
    assert 'File "mine_h.py", line 2, in fail\n    raise ValueError' in text
    assert str(child) not in text
    assert not [*child.rglob("*.pyc")]
