"""Recorded pages: each once, whole, at the sender; also when it is killed, or they are too many."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scrapy import Spider

from tests.sender.spiders import Recorded
from tests.sender.test_crawl import Ear
from tests.sender.test_spool import CRAWL, SPEC, output
from tests.store.driver import Child, order
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic.sender import spool as spool_module
from vscrapy_magic.sender import spools as spools_module
from vscrapy_magic.sender.account import recorded
from vscrapy_magic.sender.items import Items
from vscrapy_magic.sender.session import Session, attach
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.sender.spools import prune
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.failures import CapturedResponse
from vscrapy_magic.store.keys import CrawlId, crawl_key
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.pages import PageRecord
from vscrapy_magic.store.values import Codec


def pages(*urls: str) -> list[PageRecord]:
    return [PageRecord(url, "GET", "parse", CapturedResponse(url, 200, "x")) for url in urls]


def with_pages(entry: Output, *urls: str) -> Output:
    records = msgspec.msgpack.encode(pages(*urls))
    return msgspec.structs.replace(entry, record_count=len(urls), records=records)


def urls(spool: Spool) -> list[str]:
    spool.pages.refresh()
    return [spool.pages[place].url for place in range(len(spool.pages))]


def test_pages_are_kept_beside_the_outputs_and_found_again(tmp_path: Path) -> None:
    with Spool(tmp_path, CRAWL, SPEC) as spool:
        spool.keep([with_pages(output(1, ["a"]), "u1", "u2"), output(2, ["b"])])
        spool.keep([with_pages(output(3), "u3")])
        assert urls(spool) == ["u1", "u2", "u3"]
        assert spool.output(0).records == b""
    with Spool(tmp_path, CRAWL) as again:
        assert urls(again) == ["u1", "u2", "u3"]
        assert list(Items(again)) == ["a", "b"]
        with pytest.raises(IndexError, match="no page 3"):
            again.pages[3]


def test_a_process_killed_between_pages_and_outputs_leaves_each_page_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [with_pages(output(1), "u1"), with_pages(output(2, ["a"]), "u2")]

    def die(_: object) -> Output:
        raise KeyboardInterrupt

    with Spool(tmp_path, CRAWL, SPEC) as spool, monkeypatch.context() as patched:
        patched.setattr(spool_module, "_without_records", die)
        with pytest.raises(KeyboardInterrupt):
            spool.keep(entries)
    with Spool(tmp_path, CRAWL) as again:
        assert again.last is None
        again.keep([*entries, with_pages(output(4), "u4")])
        assert urls(again) == ["u1", "u2", "u4"]
        assert again.cut(2)
        assert urls(again) == ["u1", "u2"]


def test_when_spools_are_too_large_the_pages_of_the_oldest_go_before_any_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [CrawlId(f"0000000{n}") for n in range(3)]
    for age, crawl_id in enumerate(ids):
        with Spool(tmp_path, crawl_id, SPEC) as spool:
            spool.keep([with_pages(output(1, ["a"]), "u" * 5000)])
        os.utime(tmp_path / crawl_id, (2000 + age, 2000 + age))
    monkeypatch.setattr(spools_module, "ROOT_BYTES_MAX", 22_000)
    prune(tmp_path, now=3000)
    for crawl_id, kept in zip(ids, (0, 1, 1), strict=True):
        with Spool(tmp_path, crawl_id) as spool:
            assert len(urls(spool)) == kept
            assert list(Items(spool)) == ["a"]


def crawl(session: Session, kind: type[Spider] = Recorded, **fields: Any) -> Any:
    made = session.crawl(kind, record=True, **fields)
    made.wait(60)
    return made


def test_every_page_that_reached_a_callback_is_at_the_sender_once(
    session: Session, crew: Workers
) -> None:
    made = crawl(session)
    session.close()
    found = attach(made.id)  # from the disk alone
    told = sorted((page.url.partition(",")[2], page.callback) for page in found.pages)
    plain = [(str(n), "parse") for n in range(20)]
    assert told == sorted([*plain, ("more", "parse_more"), ("fails", "parse_more")])
    more = next(page for page in found.pages if page.url.endswith("more"))
    assert more.response.text == "more"
    assert more.request.cb_kwargs == {"tags": ["a"]}, "as it was before the call"
    assert [each.body for each in more.record.inline] == [b"inline"]
    assert more.record.request.count(b"***") == 1
    assert b"secret" not in more.record.request
    assert recorded(found.view).startswith("22 pages recorded: ")
    assert {page.worker for page in found.pages} <= {"w-1", "w-2"}


def test_when_no_page_fits_all_are_counted_and_the_crawl_is_as_ever(
    session: Session, crew: Workers
) -> None:
    made = crawl(session, settings={"VSCRAPY_RECORD_BYTES": 1})
    assert (len(made.pages), len(made.items)) == (0, 22)
    assert recorded(made.view).startswith(
        "0 pages recorded, 22 more not kept (VSCRAPY_RECORD_BYTES is 1)"
    )


def test_a_crawl_that_is_not_recorded_has_no_pages(session: Session, crew: Workers) -> None:
    made = session.crawl(Recorded)
    made.wait(60)
    assert len(made.pages) == 0
    assert recorded(made.view) == ""
    assert not list((Path(spools_module.spool_root()) / made.id).glob("pages"))


def test_a_worker_that_is_older_than_recording_is_named_once(
    store: Store, session: Session
) -> None:
    frontier = order(store, record_bytes=1000)
    child = Child(frontier, "w-old")
    # What it writes has no word of pages, as long as the server says nothing of them.
    store.client.hset(crawl_key(frontier.crawl_id, "meta"), "rec_max", 0)
    crawl, ear = session.attach(frontier.crawl_id), Ear()
    crawl.listen(ear)
    for _ in range(2):
        child.step(item_count=1, items=Codec().encode([{"type": "dict", "data": {}}]))
    wait_until(lambda: len(crawl.items) == 2, 10, "its items")
    wait_until(lambda: ear.texts, 5, "the line")
    (said,) = [text for text in ear.texts if "older than --record" in text]
    assert said == (
        "w-old is older than --record: pages that it works on are not recorded; update "
        "vscrapy_magic there"
    )
    crawl.stop(now=True)
