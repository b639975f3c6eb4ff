"""What cannot travel is one clear error, before anything starts."""

import re
from pathlib import Path

import pytest

from tests.cells import Notebook
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle import CannotShipError, ship_class, ship_file

S = "import scrapy"
Q = """class Q(scrapy.Spider):
    name = "q"
    def parse(self, response):
        return {value}"""
FRAME = """
class DataFrame:
    url = [1]
    def head(self): return self
DataFrame.__module__ = "pandas.core.frame"
df = DataFrame()
"""
MODEL = """
class Model:
    def predict(self, x): return x
Model.__module__ = "sklearn.linear_model"
model = Model()
"""


def refusal(folder: Path, *cells: str) -> str:
    nb = Notebook(folder)
    for cell in cells:
        nb.run(cell)
    with pytest.raises(CannotShipError) as caught:
        nb.ship("Q")
    return str(caught.value)


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (("f = open('/dev/null')\nf.close()", Q.format(value="f.read()")), "f .*an open file"),
        (
            ("import socket\ns = socket.socket()\ns.close()", Q.format(value="s")),
            "s .*an open socket",
        ),
        (("import threading\nL = threading.Lock()", Q.format(value="L")), "L .*a lock"),
        (("g = (i for i in 'ab')", Q.format(value="list(g)")), "g .*half run"),
        ((FRAME, Q.format(value="df.head()")), r"df .*a table, pandas\.DataFrame"),
        ((MODEL, Q.format(value="model.predict(1)")), "model .*a model"),
        ((f"{MODEL}predict = model.predict", Q.format(value="predict(1)")), "predict .*a model"),
        (("pass", Q.format(value="get_ipython()")), "get_ipython .*part of the notebook"),
        (("exec('def f(): return 1')", Q.format(value="f()")), "f .*source is in no cell"),
        (
            ("with open('/dev/null') as h:\n    o = object()", Q.format(value="o")),
            "o .*an object of object that a statement at Cell In.2. line 1 makes",
        ),
        (
            (
                "try:\n    o = object()\n    print()\nexcept OSError:\n    o = None",
                Q.format(value="o"),
            ),
            "o .*under conditions at Cell In.2. line 1",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_variable_and_the_line_that_uses_it_are_named(
    tmp_path: Path, cells: tuple[str, str], what: str
) -> None:
    said = refusal(tmp_path, S, *cells)
    assert re.match(f"{what}.*; Q.parse uses it: Cell In.3. line 4. Workers get source", said)
    assert "\n" not in said


def test_what_a_helper_uses_is_found(tmp_path: Path) -> None:
    said = refusal(tmp_path, S, FRAME, "\ndef f():\n    return df.head()", Q.format(value="f()"))
    assert said.startswith("df cannot travel to a worker")
    assert "f uses it: Cell In[3] line 3" in said


def test_what_a_pipeline_uses_is_found(tmp_path: Path) -> None:
    pipe = "class P:\n    def process_item(self, item):\n        return df"
    spider = Q.format(value="1") + "\n    custom_settings = {'ITEM_PIPELINES': {'__main__.P': 1}}"
    assert "P.process_item uses it: Cell In[3] line 3" in refusal(tmp_path, S, FRAME, pipe, spider)


def test_what_is_made_of_it_is_found(tmp_path: Path) -> None:
    said = refusal(tmp_path, S, MODEL, "rows = [object(), model]", Q.format(value="rows"))
    assert said.startswith("model cannot travel")
    assert "Cell In[3] line 1" in said


def test_a_class_without_source_is_told(tmp_path: Path) -> None:
    nb = Notebook(tmp_path)
    nb.run(f"{S}\nexec('class Q(scrapy.Spider): ...')")
    with pytest.raises(CannotShipError, match="source of Q is in no cell"):
        ship_class(nb.namespace["Q"], nb.cells, {}, folder=tmp_path)


def test_an_annotation_alone_stops_nothing(tmp_path: Path) -> None:
    nb = Notebook(tmp_path)
    nb.run(S)
    nb.run(FRAME)
    nb.run("class Q(scrapy.Spider):\n    def f(self, x: 'df') -> 'Missing': ...")
    assert nb.ship("Q").bundle.spider == "Q"


def test_too_large_files_name_the_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vscrapy_magic.sender.bundle_files.BUNDLE_BYTES", 3 << 20)
    (tmp_path / "small.bin").write_bytes(b"x" * 100)
    (tmp_path / "big.bin").write_bytes(b"x" * (4 << 20))
    said = refusal(tmp_path, S, Q.format(value="[open('small.bin'), open('big.bin')]"))
    assert re.search(r"larger than 3 MB together; the largest is big\.bin \(4\.0 MB\)", said)


def test_files_that_are_written_do_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vscrapy_magic.sender.bundle_files.BUNDLE_BYTES", 3 << 20)
    (tmp_path / "out.json").write_bytes(b"x" * (4 << 20))
    nb = Notebook(tmp_path)
    nb.run(S)
    nb.run(
        Q.format(value="open('out.json', 'w')")
        + "\n    custom_settings = {'FEEDS': {'out.json': {'format': 'json'}}}"
    )
    assert "out.json" not in nb.ship("Q").bundle.files


def test_a_path_of_this_machine_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a")
    nb = Notebook(tmp_path)
    nb.run(f"{S}\n{Q.format(value=f'open({str(path)!r})')}")
    note = (
        f"{path} (Cell In[1] line 5) is a file of this machine, which does not travel; name it by "
        "a path relative to the notebook"
    )
    assert nb.ship("Q").notes == (note,)


def test_a_given_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    nb = Notebook(tmp_path)
    nb.run(f"{S}\n{Q.format(value=1)}")
    with pytest.raises(ConfigError, match=r"nothere\.csv: no such file"):
        nb.ship("Q", files=[Path("nothere.csv")])


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("gone.py", None, "gone.py: No such file"),
        ("bad.py", "def (:\n", "bad.py, line 1: "),
        ("notes.txt", "x", "a spider file ends in .py"),
    ],
)
def test_a_file_that_is_no_spider_is_told(
    tmp_path: Path, name: str, source: str | None, message: str
) -> None:
    if source is not None:
        (tmp_path / name).write_text(source)
    with pytest.raises(ConfigError, match=re.escape(message)):
        ship_file(tmp_path / name)
