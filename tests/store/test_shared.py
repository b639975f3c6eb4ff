"""Defaults that a server keeps for all senders and workers: set, checked, in force where read."""

import pytest

from tests.placing import place
from vscrapy_magic.errors import ConfigError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.crawls import Crawls
from vscrapy_magic.store.keys import CrawlId, crawl_key
from vscrapy_magic.store.messages import CrawlSpec
from vscrapy_magic.store.shared import NAMES, Defaults, Shared

CRAWL = CrawlId("0a1b2c3d")


def test_nothing_is_shared_at_first(store: Store) -> None:
    assert Shared(store).read() == Defaults()
    assert Shared(store).changed() == {}
    assert set(NAMES) == set(Defaults.__struct_fields__)


def test_what_is_set_is_read_by_others_and_taken_back(store: Store) -> None:
    Shared(store).set({"retention_s": "3600", "out_bytes_max": "2097152", "hang_timeout_s": "0"})
    found = Shared(store).read()
    assert (found.retention_ms, found.out_bytes_max, found.hang_timeout_s) == (3_600_000, 2**21, 0)
    assert found.session_ttl_s == Defaults().session_ttl_s
    Shared(store).set({"retention_s": "", "hang_timeout_s": "7.5"})
    assert Shared(store).changed() == {"out_bytes_max": 2**21, "hang_timeout_s": 7.5}


def test_names_of_newer_programs_are_left_alone(store: Store) -> None:
    store.client.hset("vscrapy:shared", "of_tomorrow", b"\x01")
    assert Shared(store).read() == Defaults()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retention", "60", "retention is no shared default; did you mean retention_s?"),
        ("colour", "red", "colour is no shared default; there are retention_s, session_ttl_s"),
        ("retention_s", "1 day", "retention_s=1 day: a number of seconds is needed, from 60 to"),
        ("retention_s", "nan", "a number of seconds is needed"),
        ("session_ttl_s", "0", "session_ttl_s=0: a number of seconds is needed, from 1 to 86400"),
        ("out_bytes_max", "1.5e9", "a whole number of bytes is needed, from 1048576"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    store: Store, name: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Shared(store).set({"close_timeout_s": "5", name: value})
    assert message in str(caught.value)
    assert Shared(store).changed() == {}


def test_a_crawl_that_is_over_is_kept_as_long_as_all_share(store: Store) -> None:
    Shared(store).set({"retention_s": "120"})
    crawls = Crawls(store)
    place(store, CrawlSpec(crawl_id=CRAWL, spider="s", bundle="none"))
    crawls.kill(CRAWL)
    assert 110_000 < store.client.pttl(crawl_key(CRAWL, "meta")) <= 120_000
