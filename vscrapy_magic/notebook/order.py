"""Owns how a magic's options and a class of the notebook become an order.

Runs in the kernel. Nothing is imported for it: what Scrapy's settings are called is looked up in
the Scrapy that the notebook has imported anyway.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vscrapy_magic.sender.bundle import ship_class
from vscrapy_magic.sender.cells import Cell
from vscrapy_magic.sender.options import CrawlOptions, setting_notes
from vscrapy_magic.sender.order import Order
from vscrapy_magic.store.inspection import FeedOrder, Source
from vscrapy_magic.store.messages import Bundle
from vscrapy_magic.store.values import CannotCrossError, Codec


def class_order(
    options: CrawlOptions, kind: type, cells: Sequence[Cell], namespace: Mapping[str, object]
) -> Order:
    """An order for a spider class of the notebook.

    Raises:
        ConfigError: an option cannot be used.
        CannotShipError: something that the spider uses exists in this process only.
    """
    settings = options.cmdline_settings()
    shipped = ship_class(
        kind,
        cells,
        namespace,
        folder=Path.cwd(),
        files=[Path(name) for name in options.files],
        env=options.environment(),
        names=[name for name in map(_class_named, settings.values()) if name],
    )
    own = _plain(getattr(kind, "custom_settings", None) or {})
    return Order(
        shipped=shipped,
        spider=str(getattr(kind, "name", None) or kind.__name__),
        args=options.args,
        settings=settings,
        in_force=own,
        workers=options.workers,
        notes=(*options.notes(), *_setting_notes(options, own), *shipped.notes),
        keep_open=options.keep_open,
    )


def feed_order(options: CrawlOptions, order: Order, folder: Path) -> FeedOrder | None:
    """How the feeds are written; None when there are none.

    Args:
        folder: an empty one, where the feed writer finds the source while it runs.
    """
    if not (options.output or options.overwrite or order.in_force.get("FEEDS")):
        return None
    _write(order.shipped.bundle, folder)
    source = Source(
        entry=str(folder / order.shipped.bundle.entry),
        spider=order.spider,
        settings=order.settings,
        args=order.args,
        output=options.output,
        overwrite=options.overwrite,
        folder=str(folder),
    )
    return FeedOrder(source=source, quiet=True)


def feed_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for `feed_order`; its user removes it when the feeds are written."""
    return tempfile.TemporaryDirectory(prefix="vscrapy-feeds-")


def _write(bundle: Bundle, folder: Path) -> None:
    for name, content in bundle.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _class_named(value: str) -> str:
    """The notebook's name in a setting such as `__main__.MyPipeline`; empty for others."""
    module, _, name = value.rpartition(".")
    return name if module == "__main__" else ""


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that are plain data; the others are the children's matter alone."""
    codec, found = Codec(), {}
    for name, value in settings.items():
        try:
            codec.encode(value)
        except CannotCrossError:
            continue
        found[str(name)] = value
    return found


def _setting_notes(options: CrawlOptions, own: Mapping[str, Any]) -> list[str]:
    defaults = sys.modules.get("scrapy.settings.default_settings")
    known = [name for name in vars(defaults) if name.isupper()] if defaults else []
    return setting_notes(options.settings, known, own) if known else []
