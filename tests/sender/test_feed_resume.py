"""Feeds are exact whoever is killed: they are made of the spool, and can be made of it again."""

import csv
import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.sender.feeding import (
    ALL_KINDS,
    CRAWL,
    FORK,
    READERS,
    SHOP,
    SPEC,
    Shop,
    kill,
    numbers,
    output,
    prices,
    writers,
)
from tests.waiting import wait_until
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.failpoints import FAIL_VARIABLE
from vscrapy_magic.runtime import feeds as feeds_module
from vscrapy_magic.sender.feeds import STARTS_MAX, Feeds, export
from vscrapy_magic.sender.session import attach
from vscrapy_magic.sender.spool import CrawlEnd, Spool
from vscrapy_magic.sender.spools import SPOOL_VARIABLE
from vscrapy_magic.store.messages import CrawlState, Totals
from vscrapy_magic.store.views import CrawlView

LINES = {"out.jsonl": {"format": "jsonlines"}}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All kinds of feeds of five outputs, written in one go."""
    shop = Shop(tmp_path_factory.mktemp("straight"), ALL_KINDS)
    feeds = shop.write(range(5))
    assert not [note for note in feeds.notes if note.bad]
    files = shop.files()
    for name in READERS:
        expected = [n for n in numbers(5) if name != "only.jsonl" or n % 5 != 4]
        assert prices(files, name) == expected, name
    assert [name for name in files if name.startswith("parts/")] == [
        f"parts/{n}-TIME.csv" for n in range(1, 8)
    ]
    return files


@pytest.mark.parametrize("writer", [False, True], ids=["sender_killed", "sender_and_writer_killed"])
def test_after_a_kill_whoever_collects_writes_the_same_feeds(
    tmp_path: Path, straight: dict[str, bytes], writer: bool
) -> None:
    shop = Shop(tmp_path, ALL_KINDS)
    (shop.folder / "new.json").write_text("old, and to be overwritten")
    with shop.start(3) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        wait_until(lambda: shop.journal.entries, 20, "entries")
        kill(sender, writer=writer)
    names = shop.names()
    if not writer:  # then it has finished the files: valid, with what was in the spool
        assert shop.journal.is_complete(3)
        left = shop.files()
        for name in READERS:
            expected = [n for n in numbers(3) if name != "only.jsonl" or n % 5 != 4]
            assert prices(left, name) == expected, name
    feeds = shop.write([3, 4], new=False)
    assert shop.files() == straight
    timed = {name for name in names if name.startswith(("at-", "parts/"))}
    assert timed <= shop.names()  # addresses with times are the same ones
    assert len(list(shop.folder.glob("at-*"))) == 1
    assert len(list(shop.folder.glob("parts/*"))) == 7
    assert not [note.text for note in feeds.notes if note.bad]
    assert "Stored xml feed (35 items) in: books.xml" in str(feeds.lines)
    if not writer:
        assert all("(continued at item 21)" in line for line in feeds.lines)


@pytest.mark.parametrize("point", ["feed_mid_item:9", "feed_before_close"])
def test_a_writer_that_is_killed_at_a_fail_point_is_started_again(
    tmp_path: Path,
    straight: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    shop = Shop(tmp_path, ALL_KINDS)
    monkeypatch.setenv(FAIL_VARIABLE, point)
    with Spool(shop.root, CRAWL, SPEC) as spool:
        feeds = shop.new(spool)
        feeds.deliver(spool.keep([output(n) for n in range(5)]))
        process = psutil.Process()
        if point == "feed_mid_item:9":
            wait_until(lambda: not writers(process), 20, "its death")
        monkeypatch.delenv(FAIL_VARIABLE)
        if point == "feed_before_close":
            monkeypatch.setattr(feeds, "_start", _later_without(feeds, point))
        feeds.finish(len(spool))
    assert shop.files() == straight
    assert not [note.text for note in feeds.notes if note.bad]
    assert feeds.lines[0] == "feeds: their writer was killed (signal 9) and started again"


def _later_without(feeds: Feeds, point: str) -> Any:
    """`_start`, the first time with the fail-point in force."""
    start = feeds._start

    def started() -> None:
        os.environ.pop(FAIL_VARIABLE, None)
        start()

    return started


def test_a_writer_that_is_killed_again_and_again_is_given_up_and_the_next_sender_repairs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, LINES)
    monkeypatch.setenv(FAIL_VARIABLE, "feed_mid_item:9")
    feeds = shop.write([0, 1])
    assert feeds.lines == (f"feeds: their writer was killed {STARTS_MAX} times (signal 9)",)
    with Spool(shop.root, CRAWL) as spool:
        view = CrawlView(CRAWL, SPEC, CrawlState.CANCELLED, "", "", Totals(), (), 0, 0, 0)
        spool.keep_end(CrawlEnd(view=msgspec.msgpack.encode(view), stats={}))
    monkeypatch.delenv(FAIL_VARIABLE)
    monkeypatch.setenv(SPOOL_VARIABLE, str(shop.root))
    for _ in range(2):  # the second time there is nothing to do
        crawl = attach(CRAWL)
        crawl.close()
        assert crawl.feeds == (
            "Stored jsonlines feed (14 items) in: out.jsonl (continued at item 7)",
        )
        assert repr(crawl).endswith(f"; {crawl.feeds[0]}>")
    assert [json.loads(x)["price"] for x in shop.files()["out.jsonl"].splitlines()] == numbers(2)


def test_a_forked_child_of_a_killed_sender_does_not_keep_its_feeds_open(tmp_path: Path) -> None:
    shop = Shop(tmp_path, {"out.json": {"format": "json"}})
    with shop.start(1, **{FORK: "1"}) as sender:
        assert sender.stdout is not None
        forked = int(sender.stdout.readline())
        try:
            wait_until(lambda: shop.journal.entries, 20, "entries")
            sender.kill()
            wait_until(lambda: shop.journal.ended, 5, "the end of the writer")
        finally:
            os.kill(forked, signal.SIGKILL)
    assert [item["price"] for item in json.loads(shop.files()["out.json"])] == numbers(1)


def test_what_was_in_an_appended_file_before_the_crawl_stays(tmp_path: Path) -> None:
    shop = Shop(tmp_path, {"out.csv": {"format": "csv", "fields": ["title", "price"]}})
    path = shop.folder / "out.csv"
    path.write_text("earlier\r\n")
    with shop.start(2) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        wait_until(lambda: shop.journal.entries == 2, 20, "entries")
        kill(sender, writer=False)
    assert len(path.read_text().splitlines()) == 1 + 1 + 14
    shop.write([2], new=False)
    assert path.read_text().splitlines()[:3] == ["earlier", "title,price", "T0,0"]
    assert len(path.read_text().splitlines()) == 1 + 1 + 21


def left_after(shop: Shop, outputs: int, *, writer: bool = False) -> None:
    """A sender was killed after so many outputs."""
    with shop.start(outputs) as sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        wait_until(lambda: shop.journal.entries == outputs, 20, "entries")
        kill(sender, writer=writer)


@pytest.mark.parametrize("writer", [False, True])
def test_a_file_that_somebody_else_has_changed_is_left_alone(tmp_path: Path, writer: bool) -> None:
    shop = Shop(tmp_path, LINES | {"other.jsonl": {"format": "jsonlines"}})
    left_after(shop, 1, writer=writer)
    path = shop.folder / "out.jsonl"
    path.write_text("the work of somebody else")
    later = path.stat().st_mtime_ns + 10**10
    os.utime(path, ns=(later, later))
    feeds = shop.write([1], new=False)
    assert path.read_text() == "the work of somebody else"
    assert [note.text for note in feeds.notes if note.bad] == [
        f"{path} was changed by somebody else meanwhile: left as it is"
    ]
    assert len(shop.files()["other.jsonl"].splitlines()) == 14


def test_a_file_that_was_deleted_is_written_anew(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    left_after(shop, 1)
    (shop.folder / "out.jsonl").unlink()
    feeds = shop.write([1], new=False)
    assert len(shop.files()["out.jsonl"].splitlines()) == 14
    assert f"{shop.folder / 'out.jsonl'} was moved or deleted: written anew" in feeds.lines


def test_a_file_that_is_moved_while_it_is_written_is_said_and_can_be_written_again(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, LINES)
    path = shop.folder / "out.jsonl"
    with Spool(shop.root, CRAWL, SPEC) as spool:
        feeds = shop.new(spool)
        feeds.deliver(spool.keep([output(0)]))
        wait_until(path.exists, 20, "the file")
        path.rename(shop.folder / "moved.jsonl")
        feeds.finish(len(spool))
    assert [note.text for note in feeds.notes if note.bad] == [
        "out.jsonl was moved or deleted while it was written"
    ]
    assert len(shop.files()["moved.jsonl"].splitlines()) == 7
    shop.write([], new=False)
    assert len(shop.files()["out.jsonl"].splitlines()) == 7


def test_a_full_disk_or_a_forbidden_place_is_one_line_and_spoils_no_other_feed(
    tmp_path: Path,
) -> None:
    feeds = {
        "/dev/full": {"format": "jsonlines"},
        "/proc/no/such.json": {"format": "json"},
        **LINES,
    }
    shop = Shop(tmp_path, feeds)
    with Spool(shop.root, CRAWL, SPEC) as spool:
        written = shop.new(spool)
        written.deliver(spool.keep([output(0)]))
        wait_until(lambda: shop.journal.entries == 1, 20, "entries")
        early = written.news()  # while the crawl runs
        written.deliver(spool.keep([output(n) for n in (1, 2)]))
        written.finish(len(spool))
    said = [
        "/proc/no/such.json could not be written: No such file or directory",
        "/dev/full could not be written: No space left on device",
    ]
    assert early == said[:1]
    assert written.news() == said[1:]
    assert [note.text for note in written.notes if note.bad] == said
    assert len(shop.files()["out.jsonl"].splitlines()) == 21


def test_a_source_that_cannot_be_read_any_more_is_one_line(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    with Spool(shop.root, CRAWL, SPEC) as spool:
        feeds = shop.new(spool)
        (shop.folder / "shop.py").write_text("1 / 0\n")
        feeds.deliver(spool.keep([output(0)]))
        feeds.finish(len(spool))
        (line,) = feeds.lines
        assert line.startswith("no feed is written: ")
        assert line.endswith("shop.py, line 1: ZeroDivisionError: division by zero")
    shop.write([], new=False)  # by the copy that was sent
    assert len(shop.files()["out.jsonl"].splitlines()) == 7


def test_the_users_folder_is_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    left_after(shop, 1)
    shop.folder.rename(tmp_path / "elsewhere")
    feeds = shop.write([1], new=False)
    assert feeds.lines[-1] == f"feeds: not written: {shop.folder}: No such file or directory"


def test_two_processes_never_write_the_feeds_of_one_crawl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "lock")
    monkeypatch.setattr(feeds_module, "LOCK_WITHIN_S", 0.1)
    with Path(path).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert feeds_module.lock(path) is None
    held = feeds_module.lock(path)
    assert held is not None
    held.close()


def test_complete_feeds_are_not_touched_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    shop.write([0])
    (shop.folder / "out.jsonl").unlink()
    feeds = shop.write([], new=False)
    assert not (shop.folder / "out.jsonl").exists()
    assert feeds.lines == ("Stored jsonlines feed (7 items) in: out.jsonl",)


def test_a_crawl_without_items_leaves_what_scrapy_leaves(tmp_path: Path) -> None:
    shop = Shop(tmp_path, {"out.json": {"format": "json"}})
    shop.write([])
    assert json.loads(shop.files()["out.json"]) == []


def test_a_batch_that_is_complete_is_not_written_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, {"%(batch_id)d.jsonl": {"format": "jsonlines", "batch_item_count": 5}})
    left_after(shop, 1)
    assert set(shop.files()) == {"1.jsonl", "2.jsonl"}
    (shop.folder / "1.jsonl").unlink()  # somebody has fetched it
    shop.write([1], new=False)
    assert {name: data.count(b"\n") for name, data in shop.files().items()} == {
        "2.jsonl": 5,
        "3.jsonl": 4,
    }


REMOTE = (
    SHOP
    + """
from pathlib import Path
from scrapy.extensions.feedexport import BlockingFeedStorage

class Replaces(BlockingFeedStorage):
    mode, overwrite = "wb", True
    def __init__(self, uri, *, feed_options=None):
        self.path = uri.partition("://")[2]
    def _store_in_thread(self, file):
        file.seek(0)
        with Path(self.path).open(self.mode) as there:
            there.write(file.read())

class Appends(Replaces):
    mode, overwrite = "ab", False

Shop.custom_settings["FEED_STORAGES"] = {"replaces": Replaces, "appends": Appends}
"""
)


def test_feeds_that_are_stored_elsewhere_hold_each_item_once(tmp_path: Path) -> None:
    feeds = {"replaces://r.jsonl": LINES["out.jsonl"], "appends://a.jsonl": LINES["out.jsonl"]}
    shop = Shop(tmp_path, feeds, REMOTE)
    (shop.folder / "a.jsonl").write_text("earlier\n")
    left_after(shop, 1)
    # What cannot be taken back waits until all items are here.
    counts = {name: data.count(b"\n") for name, data in shop.files().items()}
    assert counts == {"r.jsonl": 7, "a.jsonl": 1}
    shop.write([1], new=False)
    counts = {name: data.count(b"\n") for name, data in shop.files().items()}
    assert counts == {"r.jsonl": 14, "a.jsonl": 1 + 14}


def test_a_frame_that_a_killed_sender_left_unfinished_is_dropped_and_comes_again(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path, LINES)
    with shop.start(3, **{FAIL_VARIABLE: "spool_mid_write:2"}) as sender:
        assert sender.wait(20) == -signal.SIGKILL
    with Spool(shop.root, CRAWL) as spool:
        assert spool.last == output(0).witness
    shop.write([0, 1, 2], new=False)
    assert len(shop.files()["out.jsonl"].splitlines()) == 21


def test_items_are_written_into_another_feed_later(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    shop.write([0, 1])
    other = tmp_path / "other.csv"
    with Spool(shop.root, CRAWL) as spool:
        lines = export(spool, "shop", [str(other)], overwrite=True)
        assert lines == (f"Stored csv feed (14 items) in: {other}",)
        first = next(csv.DictReader(other.read_text().splitlines()))
        assert first == {"title": "T0", "price": "0"}  # serialized as its class says
        export(spool, "shop", [str(other)], overwrite=False)
        assert len(other.read_text().splitlines()) == 30
        with pytest.raises(ConfigError, match=r"no feed is written: .*format"):
            export(spool, "shop", [str(tmp_path / "x.unknown")], overwrite=True)
    # A crawl of another machine: without its source items are plain.
    bare = tmp_path / "bare"
    bare.mkdir(mode=0o700)
    with Spool(bare, CRAWL, SPEC) as spool:
        spool.keep([output(0)])
        export(spool, "shop", [f"{tmp_path}/%(name)s.json"], overwrite=True)
    assert json.loads((tmp_path / "shop.json").read_text())[0] == {"title": "t0", "price": 0}


def test_items_that_another_machine_collects_leave_the_feed_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path, LINES)
    with Spool(shop.root, CRAWL, SPEC) as spool:
        feeds = shop.new(spool)
        feeds.deliver(spool.keep([output(number) for number in range(3)]))
        wait_until(lambda: shop.journal.entries == 3, 20, "three outputs in the feed")
        assert spool.cut(1)  # commit 1 is output 0
        feeds.begin_again()
        feeds.deliver(spool.keep([output(4)]))
        feeds.finish(len(spool))
        (line,) = feeds.lines
        assert line.startswith("Stored jsonlines feed (14 items) in: out.jsonl")
    written = [json.loads(line) for line in (shop.folder / "out.jsonl").read_text().splitlines()]
    assert [item["price"] for item in written] == [*numbers(1), *range(28, 35)]
