"""Add-ons that keep what they have seen in a file: one worker, and a word about the folder."""

from typing import Any

import pytest

from vscrapy_magic.sender.bundle import Shipped
from vscrapy_magic.sender.local_state import pinned
from vscrapy_magic.store.messages import Bundle

DELTA = {"SPIDER_MIDDLEWARES": {"scrapy_deltafetch.DeltaFetch": 100}, "DELTAFETCH_ENABLED": True}


def shipped(settings: dict[str, Any], pin: str = "") -> Shipped:
    return pinned(Shipped(Bundle(files={}, entry="x.py"), "digest", pinned=pin), settings)


def test_such_an_addon_has_one_worker_and_its_user_reads_what_goes() -> None:
    found = shipped(DELTA)
    assert found.pinned == "scrapy_deltafetch keeps what it has seen in a file"
    (note,) = found.notes
    assert "DELTAFETCH_DIR=/an/absolute/folder keeps it" in note


def test_a_folder_of_the_workers_machine_needs_no_word() -> None:
    found = shipped({**DELTA, "DELTAFETCH_DIR": "/var/lib/seen"})
    assert found.pinned
    assert not found.notes
    assert shipped({**DELTA, "DELTAFETCH_DIR": "seen"}).notes


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {**DELTA, "DELTAFETCH_ENABLED": False},
        {"SPIDER_MIDDLEWARES": {"scrapy_deltafetch.DeltaFetch": None}, "DELTAFETCH_ENABLED": True},
        {**DELTA, "DELTAFETCH_ENABLED": "False"},
        {"SPIDER_MIDDLEWARES": {"scrapy_other.Delta": 1}, "DELTAFETCH_ENABLED": True},
    ],
)
def test_one_that_is_off_changes_nothing(settings: dict[str, Any]) -> None:
    assert shipped(settings) == shipped({})


def test_a_reason_that_is_there_stays() -> None:
    assert shipped(DELTA, "state on self: S.x").pinned == "state on self: S.x"


def test_a_class_counts_as_its_path() -> None:
    kind = type("DeltaFetch", (), {"__module__": "scrapy_deltafetch.middleware"})
    assert shipped({"SPIDER_MIDDLEWARES": {kind: 1}, "DELTAFETCH_ENABLED": True}).pinned
