"""What a child makes of settings, and what it says about them."""

import logging

import pytest
from scrapy.settings import Settings

from vscrapy_magic.runtime.loader import force_settings
from vscrapy_magic.store.messages import CloseLimits


@pytest.mark.parametrize(("folder", "is_told"), [("httpcache", True), ("/var/cache/pages", False)])
def test_a_cache_that_is_this_childs_alone_is_told(
    caplog: pytest.LogCaptureFixture, folder: str, is_told: bool
) -> None:
    wished = Settings({"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": folder})
    with caplog.at_level(logging.WARNING):
        force_settings(Settings(), wished, CloseLimits())
    assert ("a cache of its own" in caplog.text) == is_told


def test_what_the_frontier_counts_no_child_counts() -> None:
    settings = Settings({"CLOSESPIDER_TIMEOUT_NO_ITEM": 5, "CLOSESPIDER_PAGECOUNT_NO_ITEM": 9})
    force_settings(settings, settings, CloseLimits(no_item_ms=5000, no_item_pages=9))
    assert settings.getint("CLOSESPIDER_TIMEOUT_NO_ITEM") == 0
    assert settings.getint("CLOSESPIDER_PAGECOUNT_NO_ITEM") == 0
