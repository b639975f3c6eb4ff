"""Owns what is found out about a spider before it is sent: its name, project, settings, mistakes.

Run by a sender as `python -m vscrapy_magic.runtime.inspect`: a `Source` (JSON) on standard input,
an `Inspection` (JSON) on standard output. A process of its own, because it imports the user's code
and Scrapy, and the sender shall neither be changed by that nor wait for it again.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
from scrapy import Spider
from scrapy.exceptions import NotConfigured
from scrapy.settings import Settings
from scrapy.utils.conf import closest_scrapy_cfg
from scrapy.utils.misc import load_object

from vscrapy_magic.runtime.source import (
    Loaded,
    NoSpiderError,
    SourceError,
    describe,
    load,
    plain,
    spider_facts,
    users_modules,
)
from vscrapy_magic.store.inspection import Inspection, Source

_ONLY_OLD: Final = (
    "{name} has start_requests() but no start(): this Scrapy does not call it, so nothing is "
    "crawled; rename it to `async def start(self)`"
)
_COMPONENTS: Final = (
    *("ADDONS", "ITEM_PIPELINES", "SPIDER_MIDDLEWARES", "DOWNLOADER_MIDDLEWARES", "EXTENSIONS"),
)


class _Heard(logging.Handler):
    """Keeps the messages of errors that Scrapy only logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def look(source: Source) -> Inspection:
    """What the source says; a mistake in it is the inspection's `error`."""
    known = tuple(Settings().keys())
    try:
        loaded = load(source)
        _check_components(loaded.settings)
        _check_feeds(loaded, source.args)
    except NoSpiderError as exc:
        return Inspection(error=str(exc), names=exc.names, known=known)
    except SourceError as exc:
        return Inspection(error=str(exc), known=known)
    config = closest_scrapy_cfg()
    return Inspection(
        names=loaded.names,
        spider=str(loaded.kind.name),
        file=getattr(sys.modules.get(loaded.kind.__module__), "__file__", None) or "",
        classes=tuple(each.__name__ for each in loaded.kind.__mro__),
        project=loaded.project,
        root=str(Path(config).parent) if config else "",
        modules=_modules(),
        settings={str(name): plain(value) for name, value in loaded.settings.items()},
        known=known,
        feeds=_feeds(loaded.settings),
        notes=tuple(_notes(loaded.kind)),
    )


def _modules() -> tuple[tuple[str, str], ...]:
    """Folder and top-level name of each module of the user's that was imported."""
    found = set()
    for name, module in users_modules().items():
        path = Path(str(module.__file__)).resolve()
        depth = name.count(".") + (path.stem == "__init__")
        found.add((str(path.parents[depth]), name.partition(".")[0]))
    return tuple(sorted(found))


def _feeds(settings: Settings) -> tuple[str, ...]:
    feeds = [str(uri) for uri in settings.getdict("FEEDS")]
    return tuple(feeds + ([str(settings["FEED_URI"])] if settings["FEED_URI"] else []))


def _check_components(settings: Settings) -> None:
    """Import what Scrapy would load by path when the crawl starts, so that it is sent too.

    Raises:
        SourceError: a path leads nowhere; the crawl would fail on every worker.
    """
    for name in _COMPONENTS:
        for path, order in settings.getdict(name).items():
            if order is None or not isinstance(path, str):
                continue
            try:
                load_object(path)
            except Exception as exc:
                raise SourceError(f"{name}: {path} cannot be loaded: {describe(exc)}") from exc


def _check_feeds(loaded: Loaded, args: dict[str, str]) -> None:
    """Let Scrapy's exporter judge the feeds; it only logs what it refuses.

    Raises:
        SourceError: it refuses one.
    """
    if not _feeds(loaded.settings):
        return
    from scrapy.crawler import Crawler
    from scrapy.extensions.feedexport import FeedExporter

    heard = _Heard()
    logger = logging.getLogger(FeedExporter.__module__)
    logger.addHandler(heard)
    logger.propagate = False
    try:
        FeedExporter(Crawler(loaded.kind, loaded.settings.copy()))
        spider_facts(loaded, args)
    except NotConfigured as exc:
        reason = "; ".join(heard.messages) or str(exc) or "Scrapy's exporter refuses it"
        raise SourceError(f"the feed cannot be written: {reason}") from exc
    except SourceError:
        raise
    except Exception as exc:
        raise SourceError(f"the feed cannot be written: {describe(exc)}") from exc
    finally:
        logger.removeHandler(heard)


def _notes(kind: type[Spider]) -> list[str]:
    """What runs without an error, and still not as its author expects."""
    only_old = hasattr(kind, "start_requests") and not hasattr(Spider, "start_requests")
    if only_old and kind.start is Spider.start and not getattr(kind, "start_urls", None):
        return [_ONLY_OLD.format(name=kind.__name__)]
    return []


def main() -> int:
    """Read an order, print what was found."""
    source = msgspec.json.decode(sys.stdin.buffer.read(), type=Source)
    # What user code prints while it is imported shall not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(look(source)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
