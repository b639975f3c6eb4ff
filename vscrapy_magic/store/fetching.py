"""Owns how the crawl that fetches one page is told which: names of settings that `%vfetch` sets.

Written by senders, read by children.
"""

from typing import Final

FETCH_SETTING: Final = "VSCRAPY_FETCH"  # the address
COOKIES_SETTING: Final = "VSCRAPY_FETCH_COOKIES"  # id of a running crawl
