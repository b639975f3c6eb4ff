"""Owns the writing of feeds at the sender, by Scrapy's own exporters.

Run by a sender as `python -m vscrapy_magic.runtime.feeds`: it is a Scrapy crawl without requests
whose spider yields the items that come on standard input (frames of 4 bytes length and an item
packet), so that formats, FEEDS options, storages and URI parameters are Scrapy's own. End of input
finishes the feeds as the end of a crawl would.
"""

import argparse
import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO, Final

import msgspec
from scrapy import Spider
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import UsageError
from scrapy.settings import Settings
from scrapy.utils.conf import feed_process_params_from_cli

from vscrapy_magic.runtime.values import Codec

HEAD: Final = struct.Struct(">I")
USAGE_ERROR: Final = 2
_SETTINGS: Final[dict[str, Any]] = {
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "LOG_LEVEL": "WARNING",
    "ITEM_PIPELINES": {},
    "CLOSESPIDER_TIMEOUT": 0,
}


class FeedSpider(Spider):
    """Yields what its sender collected."""

    name = "feeds"
    source: BinaryIO

    async def start(self) -> AsyncIterator[Any]:
        codec, loop = Codec(opaque=True), asyncio.get_running_loop()
        while packet := await loop.run_in_executor(None, read_packet, self.source):
            for record in codec.decode(packet):
                yield record["data"]


def read_packet(source: BinaryIO) -> bytes:
    """The next packet; empty at the end of input."""
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        return b""
    (size,) = HEAD.unpack(head)
    return source.read(size)


def main(argv: Sequence[str]) -> int:
    """Write the feeds named by `-o` and `-O`; the exit code."""
    parse = argparse.ArgumentParser(prog="vscrapy_magic.runtime.feeds")
    parse.add_argument("-o", dest="output", action="append", default=[])
    parse.add_argument("-O", dest="overwrite", action="append", default=[])
    parse.add_argument("--spider", default="feeds", help="name for URI parameters")
    parse.add_argument("--settings", default="{}", help="JSON: FEED_* and the like")
    options = parse.parse_args(argv)
    settings = Settings()
    settings.setdict(msgspec.json.decode(options.settings), priority="cmdline")
    settings.setdict(_SETTINGS, priority="cmdline")
    try:
        feeds = feed_process_params_from_cli(
            settings, options.output, overwrite_output=options.overwrite
        )
    except UsageError as exc:
        sys.stderr.write(f"vscrapy: {exc}\n")
        return USAGE_ERROR
    settings.set("FEEDS", feeds, priority="cmdline")
    process = CrawlerProcess(settings)
    process.crawl(
        type("FeedSpider", (FeedSpider,), {"name": options.spider}), source=sys.stdin.buffer
    )
    process.start(stop_after_crawl=True, install_signal_handlers=False)
    return int(process.bootstrap_failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
