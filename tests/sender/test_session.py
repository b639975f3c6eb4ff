"""A session: how crawls are begun and found again from Python, and how its heartbeat goes on."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from tests.sender.spiders import Keys, Pages
from tests.store.driver import order
from tests.waiting import wait_until
from tests.worker.crew import Workers
from vscrapy_magic import attach, connect, item_key
from vscrapy_magic.errors import ConfigError, CrawlNotFoundError, StateError, StoreError
from vscrapy_magic.sender.session import Session
from vscrapy_magic.sender.spool import Spool
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import CrawlState, SessionRecord
from vscrapy_magic.store.outputs import Outputs
from vscrapy_magic.store.presence import Presence
from vscrapy_magic.store.shared import Shared

ELSEWHERE = SessionRecord(session=SessionId("elsewhere"), host="h", pid=1)


def beacon_of(session: Session) -> psutil.Process:
    """The heartbeat's process; it alone has the session's id nowhere but in its ears."""
    found = [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE  # of a session that was closed in a hurry
        and "vscrapy_magic.sender.beacon" in child.cmdline()
    ]
    assert len(found) == 1
    return found[0]


def heard_ms(store: Store, session: Session) -> int:
    return int(store.client.hget("vscrapy:sessions:heard", session.record.session) or 0)


def test_a_class_of_a_module_is_crawled_and_its_results_come_back(
    session: Session, crew: Workers
) -> None:
    crawl = session.crawl(Pages, args={"count": 7, "tag": "x"}, settings={"LOG_LEVEL": "INFO"})
    assert crawl.spider == "pages"
    assert crawl.wait(30).state is CrawlState.FINISHED
    assert sorted(item["n"] for item in crawl.items) == list(range(7))
    assert {item["tag"] for item in crawl.items} == {"x"}
    assert crawl.stats["item_scraped_count"] == 7
    assert crawl.finish_reason == "finished"
    assert not crawl.logs(level="DEBUG", pattern=r"Crawled \(200")
    assert session.crawls == (crawl,)


def test_a_class_of_a_script_is_crawled_with_the_scripts_own_lines(
    store: Store, crew: Workers, own_spool: Path, tmp_path: Path
) -> None:
    script = tmp_path / "quotes.py"
    script.write_text(
        textwrap.dedent(f"""
        import scrapy
        import vscrapy_magic as vs

        WORD = "shipped"

        class Upper:
            def process_item(self, item):
                return {{**item, "word": WORD.upper()}}

        class Quotes(scrapy.Spider):
            name = "quotes"
            start_urls = ["data:text/plain,1"]
            def parse(self, response):
                yield {{"n": 1}}
                1 / 0

        if __name__ == "__main__":
            with vs.connect({store.url!r}) as session:
                crawl = session.crawl(
                    Quotes,
                    settings={{
                        "ITEM_PIPELINES": {{Upper: 300}},
                        "FEEDS": {{"out.json": {{"format": "json"}}}},
                    }},
                )
                crawl.wait(30)
                print(list(crawl.items), crawl.failures[0].place, open("out.json").read())
        """)
    )
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "[{'n': 1, 'word': 'SHIPPED'}]",
        "quotes.py, line 16, in Quotes.parse",
        '{"n": 1, "word": "SHIPPED"}',  # of the feed
    ):
        assert part in done.stdout


def test_the_key_of_an_item_is_the_same_in_the_child_and_here(
    session: Session, crew: Workers
) -> None:
    crawl = session.crawl(Keys, args={"count": 3})
    crawl.wait(30)
    said = sorted(line.text.removeprefix("key ") for line in crawl.logs(pattern="^key "))
    assert sorted(map(item_key, crawl.items)) == said
    assert len(set(said)) == 3
    assert item_key({"a": 1, "b": [1, 2]}) == item_key({"b": [1, 2], "a": 1})
    assert item_key({"a": 1}) != item_key({"a": 1.0})
    assert len(item_key({})) == 16


@pytest.mark.parametrize(
    ("spider", "options", "message"),
    [
        (Pages(), {}, "is no class: name the spider's class itself"),
        (Pages, {"workers": 0}, "workers=0: at least one is needed"),
        (Pages, {"settings": {"X": threading.Lock()}}, "the setting X cannot be sent"),
    ],
)
def test_what_cannot_be_ordered_is_one_line(
    session: Session, spider: type, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        session.crawl(spider, **options)  # type: ignore[arg-type]
    assert Crawls(session.store).list_all() == []


def test_a_class_whose_source_was_typed_at_a_prompt_is_refused_with_what_to_do(
    store: Store, own_spool: Path
) -> None:
    program = f"""
import scrapy, vscrapy_magic as vs
class Typed(scrapy.Spider):
    name = "typed"
with vs.connect({store.url!r}) as session:
    try:
        session.crawl(Typed)
    except Exception as exc:
        print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("the source of Typed was not kept: define it in a script")


def test_a_closed_session_says_so(session: Session) -> None:
    crawl = session.crawl(Pages, detach=True)
    session.close()
    session.close()
    assert repr(session).endswith(" closed>")
    with pytest.raises(StateError, match="this session has been closed: connect again"):
        session.crawl(Pages)
    session.set_ttl(5000)
    with pytest.raises(StoreError, match="closed"):
        crawl.stop()


def test_closing_cancels_the_sessions_crawls_and_no_others(store: Store, own_spool: Path) -> None:
    with connect(store.url) as session:
        mine = session.crawl(Pages)
        left = session.crawl(Pages, detach=True)
    crawls = Crawls(store)
    assert crawls.view(mine.id).state is CrawlState.CANCELLED
    assert crawls.view(left.id).state is CrawlState.QUEUED


def test_a_session_that_was_judged_gone_places_nothing_more(store: Store, session: Session) -> None:
    name = session.record.session
    store.client.zadd("vscrapy:sessions:gone", {name: heard_ms(store, session)})
    wait_until(lambda: not beacon_alive(session), 10, "the verdict")
    with pytest.raises(StateError, match=r"was taken for gone \(.*\).*connect again"):
        session.check()


def beacon_alive(session: Session) -> bool:
    return any(
        "vscrapy_magic.sender.beacon" in child.cmdline()
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
    )


def test_a_heartbeat_that_is_killed_during_a_crawl_is_started_anew_and_the_crawl_goes_on(
    store: Store, own_spool: Path, crew: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vscrapy_magic")
    with Session.connect(store.url, ttl_ms=2500) as session:
        crawl = session.crawl(Pages, keep_open=True)
        wait_until(lambda: len(crawl.items) == 5, 30, "items")
        killed = beacon_of(session)
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: beacon_alive(session), 5, "another heartbeat")
        since = heard_ms(store, session)
        wait_until(lambda: heard_ms(store, session) > since + 3000, 10, "beats beyond the TTL")
        assert "The heartbeat of this session is started anew" in caplog.messages
        assert not crawl.view.over
        crawl.stop()
        assert crawl.wait(20).state is CrawlState.STOPPED


def test_the_time_to_live_is_changed_and_begins_with_what_all_share(
    store: Store, own_spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VSCRAPY_SESSION_TTL_S", raising=False)
    Shared(store).set({"session_ttl_s": "40"})

    def left_ms(session: Session) -> float:
        due = store.client.zscore("vscrapy:sessions:due", session.record.session)
        return float(due) - heard_ms(store, session)

    with Session.connect(store.url) as session:
        assert left_ms(session) == 40_000
        first = beacon_of(session)
        session.set_ttl(40_000)
        assert beacon_of(session).pid == first.pid
        session.set_ttl(20_000)
        assert beacon_of(session).pid != first.pid
        assert left_ms(session) == 20_000
    monkeypatch.setenv("VSCRAPY_SESSION_TTL_S", "30")
    with Session.connect(store.url) as session:
        assert left_ms(session) == 30_000
    with Session.connect(store.url, ttl_ms=15_000) as session:
        assert left_ms(session) == 15_000


# Attaching.


def test_a_crawl_of_this_session_is_the_same_object(session: Session) -> None:
    crawl = session.crawl(Pages)
    assert session.attach(crawl.id) is crawl


def test_a_finished_crawl_is_found_without_any_server(session: Session, crew: Workers) -> None:
    crawl = session.crawl(Pages)
    crawl.wait(30)
    session.close()
    again = attach(crawl.id)
    try:
        assert list(again.items) == list(crawl.items)
        assert again.is_over
        assert again.stats["item_scraped_count"] == 5
        assert again.stop() is CrawlState.FINISHED
        with pytest.raises(StateError, match="is finished: it cannot be changed any more"):
            again.push("data:text/plain,1")
    finally:
        again.close()


def test_a_detached_crawl_is_collected_by_who_attaches(
    store: Store, own_spool: Path, crew: Workers
) -> None:
    with connect(store.url) as session:
        crawl_id = session.crawl(Pages, detach=True).id
    with connect(store.url) as session:
        found = session.attach(crawl_id)
        assert found.wait(30).state is CrawlState.FINISHED
        assert len(found.items) == 5


def test_a_crawl_that_waits_for_what_a_killed_sender_had_kept_goes_on_with_the_next(
    store: Store, own_spool: Path, crew: Workers
) -> None:
    Shared(store).set({"out_bytes_max": str(1024 * 1024)})
    count, big = 30, "x" * 100_000
    with connect(store.url) as session:
        crawl_id = session.crawl(Pages, args={"count": count, "tag": big}, detach=True).id
    view = Crawls(store).view
    wait_until(lambda: view(crawl_id).why.startswith("items are not collected"), 30, "the bound")
    outputs = Outputs(store, crawl_id)
    with Spool(own_spool, crawl_id) as spool:  # of a sender that dies before it acknowledges
        while found := outputs.read(spool.last):
            spool.keep(found)
    with connect(store.url) as session:
        crawl = session.attach(crawl_id)
        assert crawl.wait(30).state is CrawlState.FINISHED
        assert sorted(item["n"] for item in crawl.items) == list(range(count))


def test_a_crawl_whose_sender_is_alive_elsewhere_keeps_its_outputs(
    store: Store, session: Session, crew: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crawl = session.crawl(Pages, keep_open=True)
    wait_until(lambda: len(crawl.items) == 5, 30, "items")
    # Another user, or another machine: a spool of its own.
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "other"))
    with Session.connect(store.url, kind="terminal") as other:
        seen = other.attach(crawl.id)
        crawl.push("data:text/plain,77")
        wait_until(lambda: len(crawl.items) == 6, 20, "the pushed page")
        wait_until(lambda: seen.view.totals.items == 6, 10, "its view elsewhere")
        assert len(seen.items) == 0
        assert seen.stop() in {CrawlState.STOPPING, CrawlState.CLOSING, CrawlState.STOPPED}
        assert seen.wait(20).state is CrawlState.STOPPED
    assert crawl.wait(20).state is CrawlState.STOPPED
    assert len(crawl.items) == 6


def test_a_crawl_whose_sender_is_gone_is_collected_by_who_attaches(
    store: Store, session: Session
) -> None:
    Presence(store).beat_session(ELSEWHERE, ttl_ms=1)
    crawl_id = order(store, session=ELSEWHERE.session).crawl_id
    wait_until(lambda: Crawls(store).view(crawl_id).over, 10, "the verdict")
    found = session.attach(crawl_id)
    assert found.wait(20).state is CrawlState.CANCELLED
    assert found.view.why.startswith("its sender was not heard of for")


def test_an_unknown_crawl_is_named(session: Session) -> None:
    with pytest.raises(CrawlNotFoundError, match=r"crawl 0badc0de: not on .*`vscrapy -l` lists"):
        session.attach("0badc0de")
