"""`vscrapy runspider` on a local cluster that runs: who reads the file, and mistakes in it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import cluster_home
from tests.sender.projects import write_project
from tests.waiting import wait_until
from vscrapy_magic.sender.cluster import LocalCluster
from vscrapy_magic.store.environment import environment_id
from vscrapy_magic.store.inquiry import addresses

UP_WITHIN_S = 20.0
SPIDER = """
import sys
print("read by", sys.argv[0].rpartition("/")[2])
import scrapy
class A(scrapy.Spider):
    name = "a"
    start_urls = ["data:text/plain,a"]
    def parse(self, response):
        yield {"page": response.text}
"""


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A working folder, and a local cluster whose zygote is ready."""
    with cluster_home(monkeypatch, idle_s="120") as home:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
        LocalCluster.ensure(2)
        folder = home / "vscrapy" / "cluster"
        wait_until(lambda: list(addresses(folder, environment_id())), UP_WITHIN_S, "a zygote")
        yield tmp_path


def vscrapy(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vscrapy_magic.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_zygote_of_the_cluster_reads_the_file(warm: Path) -> None:
    (warm / "a.py").write_text(SPIDER)
    ended = vscrapy("runspider", "a.py", "-O", "a.jsonl")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[0] == "read by zygote.py"
    assert (warm / "a.jsonl").read_text() == '{"page": "a"}\n'


def test_a_mistake_is_still_one_line_before_anything_starts(warm: Path) -> None:
    (warm / "a.py").write_text("import scrapy\nx = y\n")
    ended = vscrapy("runspider", "a.py")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "vscrapy: a.py, line 2: NameError: name 'y' is not defined\n"
    (warm / "spool").mkdir(exist_ok=True)
    assert list((warm / "spool").iterdir()) == []


def test_an_unknown_spider_of_a_project_has_its_nearest_name(
    warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_project(warm / "project"))
    ended = vscrapy("crawl", "boks")
    assert ended.returncode == 2
    assert ended.stderr == ("vscrapy: no spider 'boks' in this project; did you mean 'books'?\n")
