"""The spool of a crawl: what is kept is on disk, whole, once, and found again."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from vscrapy_magic.sender import spool as spool_module
from vscrapy_magic.sender import spools as spools_module
from vscrapy_magic.sender.items import FailureList, Items
from vscrapy_magic.sender.spool import CrawlEnd, Spool, SpoolFullError
from vscrapy_magic.sender.spools import prune
from vscrapy_magic.store.failures import FailureRecord
from vscrapy_magic.store.keys import CrawlId, WorkerName
from vscrapy_magic.store.logs import LogLine
from vscrapy_magic.store.messages import Bundle, CrawlSpec
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.values import Codec

CRAWL = CrawlId("0a1b2c3d")
SPEC = CrawlSpec(crawl_id=CRAWL, spider="quotes", bundle="00")


def packet(values: Sequence[object]) -> bytes:
    return Codec().encode([{"type": "dict", "data": value} for value in values])


def failure(place: str, worker: str = "w1") -> FailureRecord:
    return FailureRecord(
        "callback", "ValueError", "no", "", place=place, group=place, worker=worker
    )


def output(number: int, items: Sequence[object] = (), failures: Sequence[object] = ()) -> Output:
    return Output(
        commit_no=number,
        nonce=f"n{number}",
        total_bytes=0,
        item_count=len(items),
        items=packet(items) if items else b"",
        failure_count=len(failures),
        failures=msgspec.msgpack.encode(failures) if failures else b"",
    )


def test_items_are_read_in_order_from_disk(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        items = Items(spool)
        assert len(items) == 0
        assert spool.keep([output(1, [{"n": 0}, {"n": 1}]), output(3, [], [failure("a")])])
        spool.keep([output(4, [{"n": 2}])])
        assert [item["n"] for item in items] == [0, 1, 2]
        assert items[-1] == {"n": 2}
        assert items[1:] == [{"n": 1}, {"n": 2}]
        with pytest.raises(IndexError, match="number 3"):
            items[3]
        assert repr(items) == "[{'n': 0},\n {'n': 1},\n {'n': 2}]"


def test_an_output_that_is_sent_again_is_kept_once(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, [1]), output(2, [2])])
        assert [new.commit_no for new in spool.keep([output(2, [2]), output(5, [3])])] == [5]
        assert list(Items(spool)) == [1, 2, 3]


def test_a_spool_is_found_again_and_goes_on(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, ["a"], [failure("x")])])
        spool.keep_lines([LogLine(1, 20, "s", "hello", WorkerName("w1"))])
    with Spool(tmp_path, CRAWL) as again:
        assert again.spec == SPEC
        assert again.last == output(1).witness
        assert list(Items(again)) == ["a"]
        assert [line.text for line in again.lines()] == ["hello"]
        again.keep([output(2, ["b"])])
        assert list(Items(again)) == ["a", "b"]
        assert FailureList(again)[0].place == "x"


@pytest.mark.parametrize("cut", [1, 7, 11])
def test_what_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path, cut: int) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, ["a"]), output(2, ["b"])])
    path = tmp_path / CRAWL / "outputs"
    os.truncate(path, path.stat().st_size - cut)
    with Spool(tmp_path, CRAWL) as again:
        assert again.last == output(1).witness
        again.keep([output(2, ["b"]), output(3, ["c"])])
        assert list(Items(again)) == ["a", "b", "c"]


def test_log_lines_after_one_that_a_killed_process_left_unfinished_are_read(tmp_path: Path) -> None:
    def line(text: str) -> LogLine:
        return LogLine(1, 20, "s", text, WorkerName("w1"))

    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep_lines([line("whole")])
        spool.keep_lines([line("torn")])
    path = tmp_path / CRAWL / "logs"
    os.truncate(path, path.stat().st_size - 3)
    with Spool(tmp_path, CRAWL) as again:
        again.keep_lines([line("after")])
        assert [each.text for each in again.lines()] == ["whole", "after"]


def test_a_disk_that_refuses_is_told_and_the_output_is_kept_when_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with Spool(tmp_path, CRAWL, SPEC) as spool:
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", refuse)
            with pytest.raises(SpoolFullError, match=r"Disk quota exceeded.*items wait"):
                spool.keep([output(1, ["a"])])
        spool.keep([output(1, ["a"])])
        assert list(Items(spool)) == ["a"]


def test_a_second_process_reads_along_but_does_not_collect(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as first, Spool(tmp_path, CRAWL) as second:
        assert (first.collects, second.collects) == (True, False)
        items = Items(second)
        first.keep([output(1, ["a"])])
        assert list(items) == ["a"]


def test_failures_are_grouped_by_place_with_their_workers(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, [], [failure("a"), failure("b"), failure("a", "w2")])])
        spool.keep([output(2, [], [failure("a")])])
        groups = FailureList(spool).groups()
        assert [(g.first.place, g.numbers, g.workers) for g in groups] == [
            ("a", (1, 3, 4), ("w1", "w2")),
            ("b", (2,), ("w1",)),
        ]


def test_failures_that_are_only_counted_count_in_their_group(tmp_path: Path) -> None:
    tally = msgspec.structs.replace(failure("a", "w2"), counted=7)
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, [], [failure("a"), failure("b")]), output(2, [], [tally])])
        spool.keep([output(3, [], [failure("a"), tally])])
    with Spool(tmp_path, CRAWL) as spool:
        failures = FailureList(spool)
        groups = failures.groups()
        assert [(g.first.place, g.count, g.left_out) for g in groups] == [
            ("a", 16, 14),
            ("b", 1, 0),
        ]
        assert (groups[0].numbers, groups[0].workers) == ((1, 3), ("w1", "w2"))
        assert (len(failures), failures.left_out) == (3, 14)
        assert [record.place for record in failures] == ["a", "b", "a"]


def test_a_buried_request_is_a_failure_with_its_address(tmp_path: Path) -> None:
    request = Codec().encode({"url": "http://site/kills"})
    entry = msgspec.structs.replace(output(1), failure_count=1, buried=request)
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([entry])
        (record,) = FailureList(spool)
        assert record.url == "http://site/kills"
        assert record.message.startswith("given up: 3 children died")


def test_items_of_unknown_classes_are_plain_data(tmp_path: Path) -> None:
    evil = Codec().encode([{"type": "m:Item", "data": {"price": os.system, "t": (1, {2})}}])
    entry = msgspec.structs.replace(output(1, [0]), items=evil)
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([entry])
        assert Items(spool)[0] == {"price": "posix:system", "t": (1, {2})}


def test_a_full_disk_is_told_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "FREE_BYTES_MIN", 2**62)
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        with pytest.raises(SpoolFullError, match="VSCRAPY_SPOOL"):
            spool.keep([output(1, ["a"])])
        assert len(Items(spool)) == 0


def test_old_spools_go_and_those_in_use_stay(tmp_path: Path) -> None:
    old = Spool(tmp_path, CrawlId("00000001"), SPEC)
    old.close()
    with Spool(tmp_path, CrawlId("00000002"), SPEC) as used:
        far = old.folder.stat().st_mtime + spools_module.KEEP_S + 10
        prune(tmp_path, now=far)
        assert not old.folder.exists()
        assert used.folder.exists()


def test_a_spool_holds_nothing_open_but_its_lock(tmp_path: Path) -> None:
    before = set(Path("/dev/fd").iterdir())
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([output(1, ["a"])])
        assert len(set(Path("/dev/fd").iterdir()) - before) == 1
    assert set(Path("/dev/fd").iterdir()) == before
    assert list(Items(spool)) == ["a"]


def test_what_is_no_spool_of_ours_is_left_alone(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root, other, root / "photos", root / "0a1b2c3d"):
        folder.mkdir()
        (folder / "kept").touch()
    (root / "00000001").symlink_to(other)
    (root / "00000002").touch()
    (root / "00000003").mkdir()  # a sender that was killed at the beginning
    prune(root, now=root.stat().st_mtime + spools_module.KEEP_S + 10)
    assert {path.name for path in root.iterdir()} == {
        *("kept", "photos", "0a1b2c3d", "00000001", "00000002")
    }
    assert (other / "kept").exists()


def test_a_spool_that_vanishes_meanwhile_does_not_hinder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool(tmp_path, CRAWL, SPEC).close()
    gone = tmp_path / "00000001"
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([gone, tmp_path / CRAWL]))
    monkeypatch.setattr(Path, "rglob", lambda folder, _: iter([folder / "crawl.new"]))
    prune(tmp_path)
    assert (tmp_path / CRAWL / "crawl").exists()


def test_the_end_of_a_crawl_is_kept(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        assert spool.end is None
        spool.keep_end(CrawlEnd(view=b"v", stats={"n": b"1"}))
    with Spool(tmp_path, CRAWL) as again:
        assert again.end == CrawlEnd(view=b"v", stats={"n": b"1"})


def test_shipped_source_is_kept_without_the_values_of_its_environment(tmp_path: Path) -> None:
    bundle = Bundle(files={"a.py": b"x = 1"}, entry="a.py", env={"TOKEN": "secret"})
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        assert spool.code(1) is None
        spool.keep_code(1, bundle)
        found = spool.code(1)
    assert found is not None
    assert (found.files, found.env) == (bundle.files, {"TOKEN": ""})
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / CRAWL).iterdir())


def test_what_is_another_machines_is_let_go_of_and_who_reads_along_sees_it(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool, Spool(tmp_path, CRAWL) as reader:
        items, seen = Items(spool), Items(reader)
        spool.keep([output(2, [{"n": 0}]), output(4, [{"n": 1}], [failure("a")])])
        assert (items[1], seen[1]) == ({"n": 1}, {"n": 1})
        assert not spool.cut(4)
        assert spool.cut(3)
        assert (len(items), len(seen), spool.failure_count, reader.failure_count) == (1, 1, 0, 0)
        assert spool.last == reader.last == output(2).witness
        spool.keep([output(6, [{"n": 7}])])
        assert (items[1], seen[1]) == ({"n": 7}, {"n": 7})
        assert spool.cut(0)
        assert (len(items), spool.last) == (0, None)


def test_a_folder_has_one_name_and_one_process_that_appends_at_a_time(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool, Spool(tmp_path, CRAWL) as reader:
        assert spool.place == reader.place
        assert not reader.acquire()
        spool.keep([output(1, [{"n": 0}])])
        spool.release()
        with (tmp_path / CRAWL / "outputs").open("ab") as file:
            file.write(b"half a frame")  # of a process that was killed
        assert reader.acquire()
        assert not spool.acquire()
        reader.keep([output(2, [{"n": 1}])])
        assert [item["n"] for item in Items(spool)] == [0, 1]
        reader.release()
        assert spool.acquire()
    other = tmp_path / "other"
    other.mkdir()
    with Spool(other, CRAWL, SPEC) as elsewhere:
        assert elsewhere.place != spool.place
