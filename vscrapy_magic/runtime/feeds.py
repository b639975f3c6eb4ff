"""Owns the writing of feeds at the sender, by Scrapy's own exporters.

Run by a sender as `python -m vscrapy_magic.runtime.feeds`, in its user's folder: it is a Scrapy
crawl without requests whose spider yields the items that come on standard input (frames of 4 bytes
length: first a `FeedOrder` as JSON, then packets of items), so that formats, FEEDS options,
storages and URI parameters are Scrapy's own. End of input finishes the feeds as the end of a crawl
would.

Items become objects of their class again when it is found in the user's own code as it is here,
because exporters ask a class for its fields and serializers. No module is imported, and no method
called, because a worker names it: what is not found stays a dictionary.
"""

import asyncio
import enum
import inspect
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Final

import msgspec
from itemadapter import ItemAdapter
from scrapy import Item, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.extensions.feedexport import FeedExporter
from scrapy.settings import Settings
from scrapy.utils.misc import load_object

from vscrapy_magic.runtime.source import (
    CMDLINE,
    Loaded,
    SourceError,
    load,
    spider_facts,
    users_modules,
)
from vscrapy_magic.store.inspection import FRAME_HEAD, FeedOrder
from vscrapy_magic.store.values import CannotCrossError, PlainCodec, Tag

logger = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
USAGE_ERROR: Final = 2
_PREFIXES: Final = ("FEED", "AWS_", "GCS_", "FTP_")  # settings that exporters and storages read
_SETTINGS: Final[dict[str, Any]] = {
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "LOG_ENABLED": False,
}
_PLAIN_ITEM: Final = "dict"


class Classes:
    """Classes of the user's code, by the path that a worker gives."""

    def __init__(self, loaded: Loaded) -> None:
        self._modules = users_modules()
        if loaded.entry is not None:
            # What a child runs as its `__main__`.
            self._modules["__main__"] = loaded.entry

    def find(self, path: str) -> type | None:
        """The class; None when the user's code, as imported here, has none there."""
        module_name, _, name = path.partition(":")
        found: Any = self._modules.get(module_name)
        for part in name.split("."):
            found = getattr(found, part, None)
        return found if inspect.isclass(found) and found.__qualname__ == name else None


class FeedCodec(PlainCodec):
    """Plain data, with the user's own classes where they are known."""

    def __init__(self, classes: Classes) -> None:
        super().__init__()
        self._classes = classes
        self._resolve = self._known

    def _known(self, path: str) -> type:
        kind = self._classes.find(path)
        if kind is None:
            raise CannotCrossError(f"{path} is not to be found in this process")
        return kind

    def _ext_hook(self, code: int, data: memoryview) -> Any:
        if code in {Tag.OBJECT, Tag.ENUM}:
            path, content = self._decoder.decode(data)
            kind = self._classes.find(path)
            if kind is not None and code == Tag.OBJECT:
                return self._build(path, content)
            if kind is not None and issubclass(kind, enum.Enum):
                return kind[content]
        return super()._ext_hook(code, data)

    def item(self, record: dict[str, Any]) -> Any:
        """The item that a child scraped."""
        name, data = record["type"], record["data"]
        kind = None if name == _PLAIN_ITEM else self._classes.find(name)
        if kind is None or not ItemAdapter.is_item_class(kind):
            return data
        if issubclass(kind, Item):
            return kind(data)
        if hasattr(kind, "model_construct"):
            return kind.model_construct(**data)
        made = kind.__new__(kind)
        for field, value in data.items():
            object.__setattr__(made, field, value)
        return made


class FeedSpider(Spider):
    """Yields what its sender collected; has the attributes that feed addresses may name."""

    name = "feeds"
    feed_source: BinaryIO
    feed_codec: FeedCodec

    async def start(self) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        while packet := await loop.run_in_executor(None, read_frame, self.feed_source):
            for record in self.feed_codec.decode(packet):
                yield self.feed_codec.item(record)


def read_frame(source: BinaryIO) -> bytes:
    """The next frame; empty at the end of input."""
    head = source.read(FRAME_HEAD.size)
    if len(head) < FRAME_HEAD.size:
        return b""
    (size,) = FRAME_HEAD.unpack(head)
    return source.read(size)


class Told(logging.Handler):
    """Shows problems, and what was stored; counts errors, because Scrapy only logs them."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self.errors = 0
        self._lowest = logging.ERROR if quiet else logging.WARNING
        self._stored = not quiet

    def emit(self, record: logging.LogRecord) -> None:
        self.errors += record.levelno >= logging.ERROR
        stored = self._stored and record.name == FeedExporter.__module__
        if record.levelno >= self._lowest or (stored and record.levelno >= logging.INFO):
            sys.stderr.write(f"vscrapy: {self.format(record)}\n")


def feed_settings(wished: Settings) -> Settings:
    """What exporters and storages may read of the spider's settings, and nothing that runs."""
    settings, scrapys = Settings(), set(Settings().keys())
    for name, value in wished.items():
        if name not in scrapys or str(name).startswith(_PREFIXES):
            settings.set(name, value, priority=CMDLINE)
    exporters = {
        path: order
        for path, order in wished.getdict("EXTENSIONS").items()
        if issubclass(load_object(path), FeedExporter)
    }
    settings.set("EXTENSIONS", exporters, priority=CMDLINE)
    settings.setdict(_SETTINGS, priority=CMDLINE)
    return settings


def main() -> int:
    """Write the feeds of one crawl; the exit code."""
    items = sys.stdin.buffer
    order = msgspec.json.decode(read_frame(items), type=FeedOrder)
    told = Told(quiet=order.quiet)
    logging.root.setLevel(logging.INFO)
    logging.root.addHandler(told)
    try:
        loaded = load(order.source)
        facts = spider_facts(loaded, order.source.args)
    except SourceError as exc:
        sys.stderr.write(f"vscrapy: no feed is written: {exc}\n")
        return USAGE_ERROR
    process = CrawlerProcess(feed_settings(loaded.settings))
    process.crawl(
        FeedSpider,
        **facts,
        feed_source=items,
        feed_codec=FeedCodec(Classes(loaded)),
    )
    process.start(stop_after_crawl=True, install_signal_handlers=False)
    return EXIT_FAILED if process.bootstrap_failed or told.errors else 0


if __name__ == "__main__":
    sys.exit(main())
