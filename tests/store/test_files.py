"""Files of children on their way to the sender: whole or not there, bounded, with an end."""

import os
from pathlib import Path

import pytest

from tests.store.driver import order
from vscrapy_magic.errors import CrawlNotFoundError
from vscrapy_magic.store import files as files_module
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.files import Files, mark_shipped, open_written, written_in
from vscrapy_magic.store.keys import CrawlId, MemberToken, crawl_key

ONE, TWO = MemberToken("w/1.aaa"), MemberToken("w-2.bbb")


def test_what_was_written_is_told_from_what_was_shipped(tmp_path: Path) -> None:
    for name in ("spider.py", "data.csv", "deep/new.txt", ".scrapy/cache", "__pycache__/x.pyc"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    mark_shipped(tmp_path / "spider.py")
    mark_shipped(tmp_path / "data.csv")
    assert [each.path for each in written_in(tmp_path)] == ["deep/new.txt"]
    (tmp_path / "data.csv").write_text("changed by the spider")
    assert [each.path for each in written_in(tmp_path)] == ["data.csv", "deep/new.txt"]


def test_links_and_pipes_are_no_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    folder = tmp_path / "child"
    folder.mkdir()
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    assert list(written_in(folder)) == []
    with pytest.raises(OSError, match="symbolic links"):
        open_written(folder, "link")


def test_files_arrive_when_their_child_has_sent_all(store: Store) -> None:
    files = Files(store, order(store).crawl_id)
    files.begin(ONE)
    assert files.put(ONE, "a/b:1.txt", 0, 6, b"abc")
    assert files.put(ONE, "a/b:1.txt", 1, 6, b"def")
    assert files.put(TWO, "empty", 0, 0, b"")
    arrivals, coming = files.arrived()
    assert ([each.path for each in arrivals], coming) == (["empty"], {ONE})
    files.done(ONE)
    (first, second), coming = files.arrived()
    assert (first.token, first.path, coming) == (TWO, "empty", frozenset())
    assert (second.token, b"".join(files.read(second))) == (ONE, b"abcdef")
    files.remove(second)
    assert files.arrived()[0] == [first]


def test_a_crawl_sends_so_many_files_and_bytes_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FILES_MAX", 2)
    monkeypatch.setattr(files_module, "FILES_BYTES_MAX", 10)
    files = Files(store, order(store).crawl_id)
    assert files.put(ONE, "a", 0, 8, b"12345678")
    assert not files.put(ONE, "b", 0, 3, b"123")
    # Sent again after a lost reply: counted once.
    assert files.put(ONE, "a", 0, 8, b"12345678")
    assert files.put(TWO, "c", 0, 2, b"12")
    files.remove(files.arrived()[0][0])
    assert not files.put(TWO, "d", 0, 0, b"")


def test_files_that_come_after_the_end_are_kept_no_longer_than_the_rest(store: Store) -> None:
    crawl_id = order(store).crawl_id
    Crawls(store).kill(crawl_id)
    Files(store, crawl_id).put(ONE, "late", 0, 1, b"x")
    assert store.client.pttl(crawl_key(crawl_id, "files")) > 0


def test_files_of_a_crawl_that_is_not_kept_are_refused(store: Store) -> None:
    with pytest.raises(CrawlNotFoundError, match="past its retention"):
        Files(store, CrawlId("gone")).begin(ONE)
