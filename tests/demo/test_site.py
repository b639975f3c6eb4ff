"""The demo site: deterministic, with every kind of page, and counting its hits."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vscrapy_magic.demo.site import DemoSite

SPIDERS = Path(__file__).parents[1] / "spiders"
PLAIN_PAGES = (
    *("/", "/catalogue?page=1", "/book/1", "/login", "/robots.txt", "/sitemap.xml", "/feed.xml"),
    *("/feed.csv", "/api/books?page=1", "/quotes/", "/big?bytes=5000"),
)


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite() as running:
        yield running


def get(url: str) -> tuple[int, str, bytes]:
    """Status, final address and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.url, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.url, error.read()


def test_two_sites_say_the_same(site: DemoSite) -> None:
    with DemoSite() as other, DemoSite(seed=2) as different:
        for path in PLAIN_PAGES:
            mine, theirs = get(site.url + path)[2], get(other.url + path)[2]
            assert mine.replace(site.url.encode(), b"") == theirs.replace(other.url.encode(), b"")
        assert get(site.url + "/book/1")[2] != get(different.url + "/book/1")[2]


def test_hits_are_counted_and_forgotten(site: DemoSite) -> None:
    for _ in range(3):
        get(site.url + "/book/7")
    get(site.url + "/")
    assert site.hits() == {"/book/7": 3, "/": 1}
    assert [path for _, path in site.log()] == ["/book/7"] * 3 + ["/"]
    site.reset()
    assert site.hits() == {}


def test_what_goes_wrong_on_purpose(site: DemoSite) -> None:
    assert get(site.url + "/missing/1")[0] == 404
    assert [get(site.url + "/broken/1")[0] for _ in range(3)] == [500] * 3
    flaky = [get(site.url + "/flaky/1")[0] for _ in range(6)]
    assert flaky[0] == 500
    assert flaky[-1] == 200
    assert flaky == sorted(flaky, reverse=True)
    status, url, _ = get(site.url + "/old-book/3")
    assert (status, url) == (200, site.url + "/book/3")


def test_the_account_needs_a_login(site: DemoSite) -> None:
    assert get(site.url + "/account")[1].startswith(site.url + "/login")


@pytest.mark.parametrize("spider", ["books", "shop_crawl", "account"])
def test_plain_scrapy_finds_the_same_twice(site: DemoSite, spider: str, tmp_path: Path) -> None:
    runs: list[Counter[str]] = []
    for number in range(2):
        site.reset()
        feed = tmp_path / f"{number}.jsonl"
        subprocess.run(
            [
                *(sys.executable, "-m", "scrapy", "runspider", str(SPIDERS / f"{spider}.py")),
                *("-a", f"site={site.url}", "-O", f"{feed}:jsonlines", "-L", "ERROR"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=60,
        )
        items = (json.loads(line) for line in feed.read_text().splitlines())
        runs.append(Counter(json.dumps(item, sort_keys=True) for item in items))
    assert runs[0] == runs[1]
    assert runs[0].total() > 100
