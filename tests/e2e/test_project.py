"""`vscrapy crawl NAME` in a Scrapy project: the same feed as `scrapy crawl NAME`, byte for byte."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal, serve
from tests.sender.projects import write_project
from tests.worker.crew import Workers
from vscrapy_magic.demo.site import DemoSite
from vscrapy_magic.store.connection import Store


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite() as running:
        yield running


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "home", store.url)


@pytest.fixture
def crew(store: Store) -> Iterator[Workers]:
    with serve(store) as workers:
        yield workers


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def lines(feed: Path) -> tuple[str, Counter[str]]:
    """A table's head, and its rows as a multiset."""
    head, *rows = feed.read_text(encoding="utf-8").splitlines()
    return head, Counter(rows)


def test_a_project_crawls_as_with_scrapy(
    site: DemoSite, terminal: Terminal, crew: Workers, project: Path
) -> None:
    here = project / "shop"  # anywhere inside
    words = ("crawl", "books", "-a", f"site={site.url}")
    terminal.scrapy(here, *words)
    feed = here / "out" / "books.csv"  # of FEEDS; where the user is, as with Scrapy
    head, expected = lines(feed)
    assert head == "title,price,never_set"
    assert all(row.split(",")[-2].startswith("GBP ") for row in expected)
    feed.unlink()
    site.reset()
    ended = terminal.run(here, *words, "-L", "INFO")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert lines(feed) == (head, expected)
    assert f"Stored csv feed ({expected.total()} items) in: out/books.csv" in ended.stderr


def test_feed_options_are_honoured(
    site: DemoSite, terminal: Terminal, crew: Workers, project: Path
) -> None:
    with (project / "shop" / "settings.py").open("a") as file:
        file.write(
            'FEEDS = {"parts/%(batch_id)d.jsonl": {"format": "jsonlines", "fields": ["price"],'
            ' "batch_item_count": 50, "encoding": "ascii"}}\n'
        )
    words = ("crawl", "books", "-a", f"site={site.url}", "--quiet")
    ended = terminal.run(project, *words, "-o", "all.json", "-o", "never/%(name)s.xml")
    assert ended.returncode == 0, ended.stderr[-3000:]
    parts = sorted((project / "parts").iterdir())
    assert len((project / "parts" / "1.jsonl").read_text().splitlines()) == 50
    assert all('"price": "GBP ' in part.read_text() for part in parts)
    assert not any("title" in part.read_text() for part in parts)
    assert (project / "all.json").read_text().startswith("[")
    assert "<price>GBP " in (project / "never" / "books.xml").read_text()


def test_limits_of_the_project_count_over_all_workers(
    site: DemoSite, terminal: Terminal, crew: Workers, project: Path
) -> None:
    words = ("crawl", "books", "-a", f"site={site.url}", "-s", "CLOSESPIDER_ITEMCOUNT=10")
    ended = terminal.run(project, *words, "-s", "CONCURRENT_REQUESTS=2", "-L", "INFO")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "finished (closespider_itemcount)" in ended.stderr
    _, rows = lines(project / "out" / "books.csv")
    assert 10 <= rows.total() < 100  # of 188: what was in flight still comes


def test_a_missing_spider_is_told_before_anything_starts(
    store: Store, terminal: Terminal, project: Path
) -> None:
    ended = terminal.run(project, "crawl", "quote")
    assert ended.returncode == 2
    assert ended.stderr == ("vscrapy: no spider 'quote' in this project; did you mean 'quotes'?\n")
    assert store.client.dbsize() == 0


def test_outside_of_a_project_it_is_told_what_to_do(terminal: Terminal, tmp_path: Path) -> None:
    ended = terminal.run(tmp_path, "crawl", "books")
    assert ended.returncode == 2
    assert "is in no Scrapy project" in ended.stderr
    assert "vscrapy runspider FILE" in ended.stderr


def test_other_commands_are_scrapys_own(terminal: Terminal, project: Path) -> None:
    assert terminal.run(project, "list").stdout == "books\nquotes\n"
