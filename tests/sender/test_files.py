"""Files that a crawl brought, in the spool: named, safe wherever they came from, bounded."""

from pathlib import Path

import pytest

from tests.store.driver import order
from vscrapy_magic.sender import files as files_module
from vscrapy_magic.sender.files import CrawlFiles
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.files import Files
from vscrapy_magic.store.keys import MemberToken

W1 = MemberToken("w-1.aaa")


@pytest.fixture
def sent(store: Store) -> Files:
    return Files(store, order(store).crawl_id)


def put(files: Files, token: MemberToken, path: str, content: bytes) -> None:
    assert files.put(token, path, 0, len(content), content)


def test_files_are_found_by_worker_and_path(sent: Files, tmp_path: Path) -> None:
    kept = CrawlFiles(tmp_path)
    assert (len(kept), repr(kept)) == (0, "{}")
    put(sent, W1, "full/a.jpg", b"A")
    put(sent, MemberToken("w-2.bbb"), "out.csv", b"B")
    assert kept.collect(sent) == (True, frozenset())
    assert kept.collect(sent) == (False, frozenset())
    assert list(kept) == ["w-1/full/a.jpg", "w-2/out.csv"]
    assert kept["w-1/full/a.jpg"].read_bytes() == b"A"
    assert kept["w-2/out.csv"].is_relative_to(tmp_path)
    assert repr(kept) == "{w-1/full/a.jpg: 1 bytes,\n w-2/out.csv: 1 bytes}"


def test_a_process_that_was_started_again_overwrites_nothing(sent: Files, tmp_path: Path) -> None:
    kept = CrawlFiles(tmp_path)
    for token, content in (("w-1.aaa", b"1"), ("w-1.bbb", b"1"), ("w-1.ccc", b"2")):
        put(sent, MemberToken(token), "out.csv", content)
    kept.collect(sent)
    assert {name: path.read_bytes() for name, path in kept.items()} == {
        "w-1/out.csv": b"1",
        "w-1/out.csv~2": b"2",
    }


@pytest.mark.parametrize(
    "path", ["../../evil", "/etc/evil", "a/../../../evil", "a//b", ".", "", "x" * 300, "a/./b"]
)
def test_no_path_leads_out_of_the_folder(sent: Files, tmp_path: Path, path: str) -> None:
    kept = CrawlFiles(tmp_path / "spool")
    put(sent, W1, path, b"evil")
    put(
        sent,
        MemberToken(
            "..",
        ),
        "evil",
        b"evil",
    )
    kept.collect(sent)
    assert set(kept) <= {"_/evil"}
    assert sent.arrived()[0] == []
    assert [each for each in tmp_path.rglob("*evil*") if "spool" not in each.parts] == []
    with pytest.raises(KeyError):
        kept[f"../{path}"]


def test_the_bounds_hold_here_whatever_a_worker_sends(
    sent: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FILES_BYTES_MAX", 3)
    for number in range(4):
        put(sent, W1, f"{number}", b"12")
    kept = CrawlFiles(tmp_path)
    kept.collect(sent)
    assert list(kept) == ["w-1/0"]
