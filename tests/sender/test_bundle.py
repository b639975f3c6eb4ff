"""What a notebook's class needs travels, as it is now; tracebacks speak of cells."""

import ast
import hashlib
import inspect
import linecache
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import pytest

from tests.cells import Notebook, entry_of, loaded
from vscrapy_magic.sender import cells
from vscrapy_magic.sender.bundle import Cell, Shipped, ship_class, ship_file
from vscrapy_magic.sender.bundle_names import binds
from vscrapy_magic.store.messages import encode

S = "import scrapy"
NOTE = (
    "Q has start_requests() but no start() (Cell In[1] line 5): Scrapy 2.16 and newer do not "
    "call it and crawl nothing; write `async def start(self)` instead"
)
Q = """class Q(scrapy.Spider):
    name = "q"
    def parse(self, response):
        return {value}
"""


def notebook(folder: Path, *cells: str) -> Notebook:
    made = Notebook(folder)
    for cell in cells:
        made.run(cell)
    return made


def parsed(shipped: Shipped, folder: Path) -> Any:
    """What the callback of the shipped class returns."""
    with loaded(shipped.bundle, folder / "child") as names:
        return names[shipped.bundle.spider](name="q").parse(None)


def test_only_what_is_used_travels(tmp_path: Path) -> None:
    nb = notebook(
        tmp_path, S, "A = 1\nB = 2\nimport json", "def f(): return B", Q.format(value="A")
    )
    assert entry_of(nb.ship("Q")).split("\n")[:2] == [S, "A = 1"]
    assert "B" not in entry_of(nb.ship("Q"))
    assert "json" not in entry_of(nb.ship("Q"))


def test_equal_notebooks_give_equal_digests(tmp_path: Path) -> None:
    cells = (S, "A = {'x', 'y', 'z'}", Q.format(value="A"))
    one, two = notebook(tmp_path, *cells).ship("Q"), notebook(tmp_path, *cells).ship("Q")
    assert one.digest == two.digest == hashlib.sha256(encode(one.bundle)).hexdigest()


def test_a_traceback_names_the_cell_and_its_line(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "\n\ndef f():\n    return 1 / 0")
    nb.run("\n" + Q.format(value="f()"), first_line=2)
    shipped = nb.ship("Q")
    with pytest.raises(ZeroDivisionError) as caught:
        parsed(shipped, tmp_path)
    text = "".join(traceback.format_exception(caught.value))
    assert 'File "Cell In[3]", line 6, in parse\n    return f()' in text
    assert 'File "Cell In[2]", line 4, in f\n    return 1 / 0' in text


def test_source_of_shipped_code_can_be_inspected(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "x = 1\ndef f():\n    return 1\n", Q.format(value="f()"))
    with loaded(nb.ship("Q").bundle, tmp_path / "child") as names:
        linecache.checkcache()
        assert inspect.getsource(names["f"]) == "def f():\n    return 1\n"


def test_an_edited_line_keeps_the_lines_after_it(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "rows = (str(i) for i in range(3))")
    nb.run(
        "class Q(scrapy.Spider):\n    start_urls = [\n        r\n        for r in rows\n    ]\n"
        "    def parse(self, response):\n        1 / 0"
    )
    with pytest.raises(ZeroDivisionError) as caught:
        parsed(nb.ship("Q"), tmp_path)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 7
    with loaded(nb.ship("Q").bundle, tmp_path / "child") as names:
        assert names["Q"].start_urls == ["0", "1", "2"]


def test_two_classes_of_one_name_are_told_apart_by_the_class(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, Q.format(value="'first'"), "First = Q", Q.format(value="'second'"))
    assert parsed(nb.ship("First"), tmp_path) == "first"
    assert parsed(nb.ship("Q"), tmp_path) == "second"
    nameless = Notebook(tmp_path)
    for cell in (S, Q.format(value="'a'")):
        nameless.run(cell)
    kind = nameless.namespace["Q"]
    nameless.run(Q.format(value="'b'"))
    shipped = ship_class(kind, nameless.cells, nameless.namespace, folder=tmp_path)
    assert parsed(shipped, tmp_path) == "a"


def test_classes_that_differ_by_a_name_only(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, Q.format(value="self.name"))
    kind = nb.namespace["Q"]
    nb.run(Q.format(value="self.name").replace('"q"', '"other"'))
    shipped = ship_class(kind, nb.cells, nb.namespace, folder=tmp_path)
    assert parsed(shipped, tmp_path) == "q"


def test_a_cell_that_failed_half_way_changes_what_it_reached(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "def f(): return 1", Q.format(value="f()"))
    with pytest.raises(ZeroDivisionError):
        nb.run("1 / 0\ndef f(): return 2")
    assert parsed(nb.ship("Q"), tmp_path) == 1
    with pytest.raises(SyntaxError):
        nb.run("def f(: return 3")
    assert parsed(nb.ship("Q"), tmp_path) == 1


def test_a_top_level_await_does_not_matter(tmp_path: Path) -> None:
    cells = [S, "import asyncio\nN = await asyncio.sleep(0, 3)", Q.format(value="N")]
    nb = notebook(tmp_path, cells[0])
    nb.cells.append(Cell("Cell In[2]", cells[1]))
    nb.namespace["N"] = 3
    nb.run(cells[2])
    assert parsed(nb.ship("Q"), tmp_path) == 3


def test_values_without_a_cell_travel(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, Q.format(value="[INJECTED, NOTHING, j.dumps(1), OD()]"))
    import collections
    import json

    nb.namespace.update(INJECTED=[1], NOTHING=None, j=json, OD=collections.OrderedDict)
    assert parsed(nb.ship("Q"), tmp_path) == [[1], None, "1", {}]


def test_an_object_travels_with_what_was_done_to_it(tmp_path: Path) -> None:
    nb = notebook(
        tmp_path,
        S,
        "class Config:\n    def load(self, n):\n        self.n = n",
        "config = Config()",
        "config.load(5)\nconfig.more = 6",
        Q.format(value="[config.n, config.more]"),
    )
    assert parsed(nb.ship("Q"), tmp_path) == [5, 6]


def test_a_pattern_made_of_what_stays_here_travels_as_it_is(tmp_path: Path) -> None:
    nb = notebook(
        tmp_path,
        f"{S}, re",
        "words = (w for w in 'ab')\nPAT = re.compile('|'.join(words))",
        "class Q(scrapy.Spider):\n    own = PAT\n    def parse(self, response):\n"
        "        return [PAT.pattern, self.own.pattern]",
    )
    assert parsed(nb.ship("Q"), tmp_path) == ["a|b", "a|b"]


def test_private_methods_and_a_later_base(tmp_path: Path) -> None:
    nb = notebook(
        tmp_path,
        S,
        "class Base(scrapy.Spider):\n    def __n(self): return 1\n"
        "    def n(self): return self.__n()",
        "class Q(Base):\n    def parse(self, response): return self.n()",
        "class Base(scrapy.Spider):\n    def n(self): return 2",
    )
    assert parsed(nb.ship("Q"), tmp_path) == 1


def test_settings_with_a_computed_part_keep_their_classes(tmp_path: Path) -> None:
    nb = notebook(
        tmp_path,
        S,
        "class Pipe: ...\nrows = (i for i in range(3))",
        "class Q(scrapy.Spider):\n    custom_settings = {'N': len(list(rows)), 'P': {Pipe: 1}}\n"
        "    def parse(self, response):\n        return self.custom_settings['N']",
    )
    assert parsed(nb.ship("Q"), tmp_path) == 3


def test_names_that_settings_speak_of_travel(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "class Pipe: ...", Q.format(value="1"))
    with loaded(nb.ship("Q", names=["Pipe"]).bundle, tmp_path / "child") as names:
        assert names["Pipe"].__module__ == "__main__"


def test_a_class_of_a_module_is_imported_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "mine_spiders.py").write_text(f"{S}\n{Q.format(value='7')}")
    nb = notebook(tmp_path, "from mine_spiders import Q")
    shipped = nb.ship("Q")
    assert "mine_spiders.py" in shipped.bundle.files
    assert parsed(shipped, tmp_path) == 7
    alone = ship_class(nb.namespace["Q"], (), {}, folder=tmp_path)
    assert parsed(alone, tmp_path) == 7


def test_given_files_and_environment_travel(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    outside = tmp_path / "b.txt"
    outside.write_text("b")
    nb = notebook(tmp_path / "in", S, Q.format(value="1"))
    shipped = nb.ship("Q", files=[Path("a.txt"), outside], env={"KEY": "secret"})
    assert {"a.txt", "b.txt"} < set(shipped.bundle.files)
    assert shipped.bundle.env == {"KEY": "secret"}


def test_start_requests_alone_is_noted_with_its_line(tmp_path: Path) -> None:
    old = "class Q(scrapy.Spider):\n    x = 1\n    def start_requests(self):\n        yield 1"
    assert notebook(tmp_path, f"{S}\n\n{old}").ship("Q").notes == (NOTE,)
    both = f"{old}\n    async def start(self):\n        yield 1"
    assert notebook(tmp_path, f"{S}\n{both}").ship("Q").notes == ()
    (tmp_path / "old.py").write_text(f"{S}\n{old}")
    assert "(old.py line 4)" in ship_file(tmp_path / "old.py").notes[0]


def test_state_on_self_pins_the_crawl(tmp_path: Path) -> None:
    source = (
        "class Q(scrapy.Spider):\n    def parse(self, response):\n        self.token = 1\n"
        "    def page(self, response):\n        return self.token"
    )
    nb = notebook(tmp_path, S)
    nb.run(source, first_line=2)
    assert nb.ship("Q").pinned == "state on self: Q.token, Cell In[2] line 4"
    (tmp_path / "state.py").write_text(f"{S}\n{source}")
    pinned = ship_file(tmp_path / "state.py").pinned
    assert pinned == "state on self: Q.token, state.py line 4"


def test_future_imports_stay_in_force_for_later_cells(tmp_path: Path) -> None:
    nb = notebook(tmp_path, "from __future__ import annotations", S)
    nb.run("def f(x: NotThere) -> NorThis:\n    return x")
    nb.run(Q.format(value="f(1)"))
    assert parsed(nb.ship("Q"), tmp_path) == 1


def test_large_data_travels_and_stays_out_of_the_class(tmp_path: Path) -> None:
    nb = notebook(tmp_path, S, "rows = (f'http://a/{i}' for i in range(30000))")
    nb.run("class Q(scrapy.Spider):\n    start_urls = list(rows)\n    end = 1")
    shipped = nb.ship("Q")
    assert max(map(len, entry_of(shipped).split("class Q")[1].split("\n"))) < 100
    with loaded(shipped.bundle, tmp_path / "child") as names:
        assert names["Q"].start_urls == [f"http://a/{i}" for i in range(30000)]


def test_a_cell_that_ipython_compiled_statement_by_statement_is_found(tmp_path: Path) -> None:
    source = f"{S}\n" + Q.format(value="scrapy.Request('http://a/').url")
    nb = notebook(tmp_path)
    nb.cells.append(Cell("Cell In[1]", source))
    with nb.as_main():
        for statement in ast.parse(source).body:
            one = ast.Module([statement], [])
            exec(compile(one, "/tmp/ipykernel_1/1.py", "exec", dont_inherit=True), nb.namespace)
    assert parsed(nb.ship("Q"), tmp_path) == "http://a/"


def test_cells_are_parsed_once_however_often_a_class_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    parse = cells.parse

    def counted(source: str, flags: int = 0) -> ast.Module | None:
        asked.append(source)
        return parse(source, flags)

    monkeypatch.setattr(cells, "parse", counted)
    nb = notebook(tmp_path, S, "read_once = 1", Q.format(value="read_once"))
    first = nb.ship("Q")
    assert "read_once = 1" in asked
    asked.clear()
    assert nb.ship("Q").digest == first.digest
    assert asked == []
    nb.run("read_once = 2")
    assert parsed(nb.ship("Q"), tmp_path) == 2
    assert set(asked) == {"read_once = 2"}


def test_a_star_import_binds_what_its_module_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("stars")
    monkeypatch.setitem(sys.modules, "stars", module)
    (statement,) = ast.parse("if True:\n    from stars import *").body
    assert binds(statement) == frozenset()
    module.one = 1  # type: ignore[attr-defined]
    assert binds(statement) == {"one"}
