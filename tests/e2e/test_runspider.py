"""`vscrapy runspider FILE` as a user types it: as `scrapy runspider`, on 1 and 2 workers."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until
from vscrapy_magic.demo.site import DemoSite

SPIDERS = Path(__file__).parents[1] / "spiders"
SLOW_PAGES_MS = 100  # so that one worker has more ready work than it can start


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite(delay_ms=SLOW_PAGES_MS) as running:
        yield running


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("VSCRAPY")}


def vscrapy(*words: str) -> list[str]:
    return [sys.executable, "-m", "vscrapy_magic.cli", *words]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        vscrapy(*words),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def items(feed: Path) -> Counter[str]:
    lines = feed.read_text().splitlines()
    return Counter(json.dumps(json.loads(line), sort_keys=True) for line in lines)


def local_items(folder: Path, spider: Path, site: DemoSite) -> Counter[str]:
    feed = folder / "local.jsonl"
    subprocess.run(
        [
            *(sys.executable, "-m", "scrapy", "runspider", str(spider)),
            *("-a", f"site={site.url}", "-O", f"{feed}:jsonlines", "-L", "ERROR"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=90,
    )
    site.reset()
    return items(feed)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("spider", ["books", "shop_crawl", "account"])
def test_same_items_as_local(site: DemoSite, tmp_path: Path, spider: str, workers: str) -> None:
    path = SPIDERS / f"{spider}.py"
    expected = local_items(tmp_path, path, site)
    ended = run(
        tmp_path,
        *("runspider", str(path), "-a", f"site={site.url}", "--workers", workers),
        *("-O", "ours.jsonl:jsonlines"),
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert items(tmp_path / "ours.jsonl") == expected
    assert re.search(rf"finished \(finished\): {expected.total()} items", ended.stderr)
    took_part = set(re.findall(r"^(local-\d) .*Spider opened$", ended.stderr, re.MULTILINE))
    # One worker can start all that `account` has ready: a second one would find nothing to do.
    assert len(took_part) == (1 if spider == "account" else int(workers))


def test_a_worker_and_a_child_killed_lose_and_repeat_nothing(tmp_path: Path) -> None:
    path = SPIDERS / "books.py"
    with DemoSite(delay_ms=100) as site:
        expected = local_items(tmp_path, path, site)
        with subprocess.Popen(
            vscrapy(
                *("runspider", str(path), "-a", f"site={site.url}", "--workers", "2"),
                *("-O", "ours.jsonl:jsonlines", "-L", "INFO"),
            ),
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: len(_children(process.pid)) == 2, 20, "two children")
            wait_until(lambda: site.stats()["requests"] > 40, 20, "pages")
            victim = _children(process.pid)[0]
            supervisor = psutil.Process(victim).parent()
            os.kill(victim, signal.SIGKILL)
            other = next(pid for pid in _children(process.pid) if pid != victim)
            wait_until(lambda: site.stats()["requests"] > 80, 20, "more pages")
            assert supervisor is not None
            parent = psutil.Process(other).parent()
            assert parent is not None
            parent.kill()
            _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors[-3000:]
    assert items(tmp_path / "ours.jsonl") == expected


def _children(sender: int) -> list[int]:
    found = []
    for process in psutil.Process(sender).children(recursive=True):
        try:
            if "vscrapy_magic.runtime.child" in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_an_interrupt_stops_and_keeps_what_came(tmp_path: Path) -> None:
    with DemoSite(delay_ms=200) as site:
        with subprocess.Popen(
            vscrapy(
                *("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}"),
                *("-O", "ours.jsonl:jsonlines", "-L", "INFO"),
            ),
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: site.stats()["requests"] > 20, 20, "pages")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors[-3000:]
        assert re.search(r"crawl \w+ stopped \(shutdown\): \d+ items", errors)
        kept = items(tmp_path / "ours.jsonl")
        assert 0 < kept.total() < 209
        assert max(kept.values()) == 1


def test_a_sender_that_is_killed_leaves_no_process(tmp_path: Path, site: DemoSite) -> None:
    process = subprocess.Popen(
        vscrapy("runspider", str(SPIDERS / "books.py"), "-a", f"site={site.url}", "--nolog"),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: _children(process.pid), 20, "a child")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    try:
        wait_until(lambda: not any(p.is_running() for p in family), 15, f"end of {family}")
    finally:
        for left in family:
            if left.is_running():
                left.kill()


BROKEN = """
import scrapy
raise RuntimeError("no such thing")
"""


def test_a_spider_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    ended = run(tmp_path, "runspider", "broken.py")
    assert ended.returncode == 1
    assert "RuntimeError: no such thing" in ended.stderr
    assert re.search(r"broken\.py\", line 3", ended.stderr)
    assert re.search(r"crawl \w+ failed \(RuntimeError: no such thing\)", ended.stderr)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runspider", "nothere.py"], "nothere.py: No such file"),
        (["runspider", "bad.py"], "bad.py, line 1: "),
        (["runspider", "bad.py", "-a", "x"], "-a NAME=VALUE"),
        (["runspider", "good.py", "-s", "CLOSESPIDER_ITEMCOUNT=x"], "a number is needed"),
        (["-l"], "which Redis"),
        (["worker", "localhost"], "redis://"),
        (["-l", "--redis", "redis://127.0.0.1:1"], "does not answer"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    (tmp_path / "good.py").write_text("import scrapy\n")
    ended = run(tmp_path, *words)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_the_rest_goes_to_scrapy(tmp_path: Path) -> None:
    ended = run(tmp_path, "version")
    assert ended.stdout.startswith("Scrapy ")
