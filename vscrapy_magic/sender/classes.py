"""Owns how a spider class at hand becomes an order: of a notebook, a script or a module.

Runs in the sender's process. Nothing is imported for it: what Scrapy's settings are called is
looked up in the Scrapy that has been imported anyway.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle import ship_class
from vscrapy_magic.sender.cells import Cell, ran_here
from vscrapy_magic.sender.local_state import pinned
from vscrapy_magic.sender.options import CrawlOptions, no_effect_notes, setting_notes
from vscrapy_magic.sender.order import Order
from vscrapy_magic.store.inspection import FeedOrder, Source
from vscrapy_magic.store.values import CannotCrossError, Codec

_MAIN = "__main__"


def class_order(
    options: CrawlOptions,
    kind: type,
    cells: Sequence[Cell],
    namespace: Mapping[str, object],
    settings: Mapping[str, Any] = {},
) -> Order:
    """An order for a spider class.

    Args:
        cells: the source that defined it, and what it uses; empty for a class of a module.
        settings: as objects; they win over those of the options, which are text.

    Raises:
        ConfigError: an option cannot be used.
        CannotShipError: something that the spider uses exists in this process only.
    """
    given = options.cmdline_settings() | _by_name(settings)
    shipped = ship_class(
        kind,
        cells,
        namespace,
        folder=Path.cwd(),
        files=[Path(name) for name in options.files],
        env=options.environment(),
        names=sorted(_names_in(given)),
    )
    custom = getattr(kind, "custom_settings", None) or {}
    shipped = pinned(shipped, {**custom, **given})
    own = _plain(_by_name(custom))
    strange = _setting_notes([*options.settings, *settings], own)
    spider = str(getattr(kind, "name", None) or kind.__name__)
    return Order(
        shipped=shipped,
        spider=spider,
        args=options.args,
        settings=given,
        in_force=own,
        workers=options.workers,
        notes=(*options.notes(), *strange, *no_effect_notes({**own, **given}), *shipped.notes),
        keep_open=options.keep_open,
        record=options.record,
        feeds=_feeds(options, spider, given) if _has_feeds(options, own | given) else None,
    )


def class_source(kind: type) -> tuple[Sequence[Cell], Mapping[str, object]]:
    """The cells and the namespace that a class was defined in.

    Cells of a notebook; the script that is run here, as one cell; nothing for a class of a module,
    which travels as the file that it is.

    Raises:
        ConfigError: its source was typed where nothing notes it.
    """
    if kind.__module__ != _MAIN:
        return (), {kind.__name__: kind}
    noted = ran_here()
    if noted is not None:
        return noted
    main = sys.modules[_MAIN]
    script = getattr(main, "__file__", None)
    if script is None:
        raise ConfigError(
            f"the source of {kind.__name__} was not kept: define it in a script, a module, or a "
            "notebook (after `%load_ext vscrapy_magic`)"
        )
    path = Path(script)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}, where {kind.__name__} is defined, cannot be read") from exc
    return (Cell(label=path.name, source=source),), vars(main)


def _has_feeds(options: CrawlOptions, in_force: Mapping[str, Any]) -> bool:
    return bool(options.output or options.overwrite or in_force.get("FEEDS"))


def _feeds(options: CrawlOptions, spider: str, settings: Mapping[str, Any]) -> FeedOrder:
    """How the feeds are written, with the source as it was sent."""
    source = Source(
        spider=spider,
        settings=dict(settings),
        args=options.args,
        output=options.output,
        overwrite=options.overwrite,
    )
    return FeedOrder(source=source)


def _by_name(value: Any) -> Any:
    """Settings with their classes as the paths by which Scrapy finds them on any machine."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {_by_name(key): _by_name(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_by_name(each) for each in value)
    return value


def _names_in(value: Any) -> set[str]:
    """Names of `__main__` in settings, as in `__main__.MyPipeline`."""
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        return {name} if module == _MAIN else set()
    if isinstance(value, Mapping):
        return _names_in(list(value.keys())) | _names_in(list(value.values()))
    if isinstance(value, list | tuple):
        return {name for each in value for name in _names_in(each)}
    return set()


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


def _setting_notes(given: Sequence[str], own: Mapping[str, Any]) -> list[str]:
    defaults = sys.modules.get("scrapy.settings.default_settings")
    known = [name for name in vars(defaults) if name.isupper()] if defaults else []
    return setting_notes(given, known, own) if known else []
