"""Failures and pages of a project's or a file's crawl, again on the machine that ordered it."""

import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vscrapy_magic as vs
from tests.e2e.terminal import Terminal, serve
from tests.notebook.shell import fresh_shell, run
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.debugging import debug
from vscrapy_magic.notebook.extension import unload
from vscrapy_magic.store.connection import Store

CENTS = "def cents_of(text):\n    return round(100 * float(text))\n"
FIXED = CENTS.replace("float(text)", "float(text.replace('free', '0.01'))")
BROKEN = CENTS.replace("(100 * ", "({'7': None}.get(text, 100) * ")
SPIDER = """import scrapy
from shop.prices import cents_of
class Prices(scrapy.Spider):
    name = "prices"
    async def start(self):
        for text in ("12.50", "free", "7", "0"):
            yield scrapy.Request(f"data:text/plain,{text}", cb_kwargs={"tag": text})
    def parse(self, response, tag):
        yield {"tag": tag, "cents": cents_of(response.text)}
"""
FILES = {
    "scrapy.cfg": "[settings]\ndefault = shop.settings\n",
    "shop/__init__.py": "",
    "shop/settings.py": (
        'SPIDER_MODULES = ["shop.spiders"]\nITEM_PIPELINES = {"shop.pipelines.Check": 100}\n'
    ),
    "shop/prices.py": CENTS,
    "shop/pipelines.py": (
        "class Check:\n"
        "    def process_item(self, item):\n"
        '        if not item["cents"]:\n'
        '            raise ValueError("nothing")\n'
        "        return item\n"
    ),
    "shop/spiders/__init__.py": "",
    "shop/spiders/prices.py": SPIDER,
}


@pytest.fixture
def terminal(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A user's terminal; this test process has the same spool, and no server once it is over."""
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("VSCRAPY_REDIS_URL", f"unix://{tmp_path}/gone.sock")
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # no spiders in it
    made = Terminal(tmp_path / "home", store.url)
    made.environment["VSCRAPY_SPOOL"] = str(tmp_path / "spool")
    with serve(store, 1):
        yield made


def crawled(terminal: Terminal, folder: Path, *words: str) -> str:
    ended = terminal.run(folder, *words, "-L", "ERROR")
    found = re.search(r"crawl ([0-9a-f]{8}) prices finished", ended.stderr)
    assert found, ended.stderr[-3000:]
    return found[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


def test_a_projects_crawl_is_debugged_as_shipped_and_compared_with_the_project_as_it_is_now(
    terminal: Terminal,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crawl_id = crawled(terminal, project / "shop", "crawl", "prices", "--record")
    (project / "shop" / "prices.py").write_text(FIXED)
    monkeypatch.setattr("builtins.input", lambda *_: "q")
    with fresh_shell() as shell:
        run(shell, "%load_ext vscrapy_magic")
        run(shell, f"import vscrapy_magic as vs; crawl = vs.attach('{crawl_id}')")
        capsys.readouterr()
        numbers = {failure.message: n for n, failure in enumerate(vs.attach(crawl_id).failures, 1)}
        run(shell, f"%vdebug {numbers['nothing']}")
        assert "here as on local, at shop/pipelines.py, line 4, in Check" in capsys.readouterr().out
        run(shell, f"%vdebug {3 - numbers['nothing']}")
        assert "here as on local, at shop/prices.py, line 2, in cents" in capsys.readouterr().out
        counts = run(shell, "%vreplay all").result.counts
        assert counts == {"fixed": 1, "same error": 1, "unchanged": 3}
        edited = (
            "class Prices(scrapy.Spider):\n    name = 'prices'\n    def parse(self, *_, tag): pass"
        )
        run(shell, f"import scrapy\n{edited}")
        capsys.readouterr()
        counts = run(shell, "%vreplay all").result.counts
        assert counts == {"fixed": 1, "now yields other things": 3, "not run": 1}
        assert f"compared with prices of this notebook, not of {project}" in capsys.readouterr().out
        unload(shell)
    (project / "shop" / "prices.py").write_text(BROKEN)
    replayed = terminal.run(tmp_path, "replay", crawl_id[:6])
    assert replayed.returncode == 1, replayed.stderr
    assert "newly broken: TypeError: " in replayed.stdout
    assert f"`vscrapy replay {crawl_id} p3` shows what page 3 brings now\n" in replayed.stdout
    assert "at shop/prices.py, line 2, in cents_of" in replayed.stdout


def test_of_a_project_that_is_gone_or_elsewhere_it_is_said(
    terminal: Terminal, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl_id = crawled(terminal, project, "crawl", "prices")
    copy = shutil.copytree(project, tmp_path / "copy")
    (copy / "shop" / "prices.py").write_text(FIXED)
    shutil.rmtree(project)
    crawl: Any = vs.attach(crawl_id)
    with pytest.raises(ConfigError, match=r"the project it came from, .*, is not there"):
        vs.replay(crawl)
    (tmp_path / "spool" / crawl_id / "origin").unlink()  # as on another machine
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="go into its folder to compare with it"):
        vs.replay(crawl)
    monkeypatch.chdir(copy)
    assert vs.replay(crawl).counts == {"fixed": 1, "same error": 1}


def test_the_crawl_of_a_file_is_compared_with_the_file_as_it_is_now(
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "prices.py"
    path.write_text(SPIDER.replace("from shop.prices import cents_of\n", CENTS))
    crawl_id = crawled(terminal, tmp_path, "runspider", "prices.py")
    path.write_text(SPIDER.replace("from shop.prices import cents_of\n", FIXED))
    crawl = vs.attach(crawl_id)
    assert vs.replay(crawl, 1).counts == {"fixed": 1}
    monkeypatch.setattr("sys.stdin.readline", lambda: "q\n", raising=False)
    assert debug(None, crawl) == ""
    said = capsys.readouterr().out
    assert "here as on local, at prices.py, line 3, in cents_of" in said
    path.unlink()
    with pytest.raises(ConfigError, match=r"the file it came from, .*prices.py, is not"):
        vs.replay(crawl)
