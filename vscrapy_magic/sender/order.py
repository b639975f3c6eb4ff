"""Owns what is ordered: shipped source with the options of a crawl, made into a crawl's spec.

Runs in the sender's process. Limits that hold for the whole crawl are taken from the settings in
force for the spider, so that no worker counts them for itself.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.sender.bundle import Shipped, ship_file
from vscrapy_magic.sender.inspecting import Inspecting, file_source, project_source
from vscrapy_magic.sender.local_state import pinned
from vscrapy_magic.sender.options import MASK, CrawlOptions, no_effect_notes, setting_notes
from vscrapy_magic.sender.project import data_files, shared_state_of, source_files
from vscrapy_magic.store.crawls import new_crawl_id
from vscrapy_magic.store.inspection import FeedOrder, Inspection, Origin, Source
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import Bundle, CloseLimits, CrawlSpec, SessionRecord, encode
from vscrapy_magic.store.pages import RECORD_BYTES_MAX, RECORD_SETTING
from vscrapy_magic.store.placement import Placement
from vscrapy_magic.store.values import CannotCrossError, Codec
from vscrapy_magic.store.views import CrawlView

_DATA: Final = ".scrapy"  # the folder of Scrapy's own data, in that of a project
_FIFO_QUEUES: Final = "FifoMemoryQueue"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One crawl as the user asked for it.

    Attributes:
        shipped: the source, with data files and environment variables; its `pinned` says why more
            than one worker would give something else.
        spider: name of the spider, or of its class.
        settings: given with the order; they win over those of spider and project.
        root: the folder that Scrapy's data of the project, or of the spider, is in.
        in_force: what is known of the settings in force for the spider, plain.
        workers: at most so many; None: all, or one when the source is pinned.
        notes: what its user should know before it runs.
        feeds: how the feeds are written at the sender; None when there are none.
        only: name of the worker that is to run it; empty for any.
        breaks: whether its user is there to debug at a `breakpoint()`.
        pdb: whether the first failure of the crawl stops in the debugger.
        record: whether all pages come back, for who replays them.
        origin: where the source was read; None for one of cells, or of a class.
    """

    shipped: Shipped
    spider: str = ""
    args: dict[str, str] = {}
    settings: dict[str, Any] = {}
    in_force: dict[str, Any] = {}
    root: str = ""
    workers: int | None = None
    notes: tuple[str, ...] = ()
    keep_open: bool = False
    feeds: FeedOrder | None = None
    only: str = ""
    breaks: bool = False
    pdb: bool = False
    record: bool = False
    origin: Origin | None = None

    @property
    def workers_max(self) -> int:
        """At most so many workers; 0 means all."""
        if self.workers is not None:
            return self.workers
        return 1 if self.shipped.pinned else 0

    @property
    def log_level(self) -> int:
        """The level that the workers log from."""
        level = logging.getLevelName(str(self._setting("LOG_LEVEL", "DEBUG")))
        return level if isinstance(level, int) else logging.DEBUG

    @property
    def record_bytes(self) -> int:
        """So much of all pages is kept; 0 for none.

        Raises:
            ConfigError: the setting is no number of bytes.
        """
        if not self.record:
            return 0
        value = self._setting(RECORD_SETTING, RECORD_BYTES_MAX)
        if not str(value).isdecimal() or not int(value):
            raise ConfigError(f"{RECORD_SETTING}={value}: a number of bytes is needed")
        return int(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """A setting in force that is yes or no, read as Scrapy reads it."""
        return str(self._setting(name, default)) in {"1", "True", "true"}

    def text(self, name: str, default: str = "") -> str:
        """A setting in force that is text."""
        value = self._setting(name, default)
        return default if value is None else str(value)

    def _setting(self, name: str, default: Any) -> Any:
        return self.settings.get(name, self.in_force.get(name, default))

    def __repr__(self) -> str:
        bundle = self.shipped.bundle
        env = dict.fromkeys(bundle.env, MASK)
        return f"<Order {self.spider}: {len(bundle.files)} files, environment {env}>"


def project_order(options: CrawlOptions, begun: Inspecting | None = None) -> Order:
    """An order for a spider of the project around the working folder.

    Args:
        begun: the reading of its source, when that has begun.

    Raises:
        ConfigError: there is no such project or spider, or an option cannot be used.
    """
    with begun or Inspecting(project_source(options)) as inspecting:
        source, found = inspecting.source, inspecting.result()
    bundle = Bundle(
        files=source_files(found) | data_files(options.files),
        entry="",
        project=found.project,
        env=options.environment(),
    )
    shipped = Shipped(bundle, digest_of(bundle), found.notes, shared_state_of(found))
    return _order(options, source, found, shipped)


def file_order(options: CrawlOptions, begun: Inspecting | None = None) -> Order:
    """An order for the spider in one file, with what it uses from beside it, or of its project.

    Args:
        begun: the reading of its source, when that has begun.

    Raises:
        ConfigError: the file cannot be read or run, or an option cannot be used.
    """
    with begun or Inspecting(file_source(options)) as inspecting:
        source, found = inspecting.source, inspecting.result()
    shipped = ship_file(Path(source.entry), env=options.environment())
    bundle = msgspec.structs.replace(
        shipped.bundle,
        files=source_files(found) | shipped.bundle.files | data_files(options.files),
        project=found.project,
    )
    shipped = Shipped(bundle, digest_of(bundle), shipped.notes, shared_state_of(found))
    return _order(options, source, found, shipped)


def digest_of(bundle: Bundle) -> str:
    """The name that a bundle is kept under."""
    return hashlib.sha256(encode(bundle)).hexdigest()


def _order(options: CrawlOptions, source: Source, found: Inspection, shipped: Shipped) -> Order:
    source = msgspec.structs.replace(source, spider=found.spider)
    own = found.settings.keys() - options.settings.keys()
    strange = setting_notes(options.settings, found.known, own)
    shipped = pinned(shipped, found.settings)
    return Order(
        shipped=shipped,
        spider=found.spider,
        args=options.args,
        settings=options.cmdline_settings(),
        in_force=found.settings,
        root=found.root,
        workers=options.workers,
        notes=(
            *options.notes(),
            *strange,
            *no_effect_notes(found.settings | options.settings),
            *shipped.notes,
        ),
        keep_open=options.keep_open,
        record=options.record,
        origin=Origin(source=source, folder=str(Path.cwd())),
        feeds=FeedOrder(source=source) if found.feeds else None,
    )


def debuggable(order: Order, options: CrawlOptions, *, can_type: bool) -> Order:
    """The order, with what a user who may be there wants to debug.

    Args:
        can_type: whether somebody is there who can type at a prompt.
    """
    can_type = can_type and not options.detach
    notes = order.notes
    if options.pdb and not can_type:
        notes += ("--pdb: nobody can type here while it crawls; failures are kept, see `errors`",)
    return msgspec.structs.replace(
        order,
        breaks=can_type and not options.no_break,
        pdb=can_type and options.pdb,
        notes=notes,
    )


def place(
    order: Order,
    placement: Placement,
    session: SessionId | None,
    *,
    env: str = "",
    collector: SessionRecord | None = None,
    before: Callable[[CrawlSpec], object] = lambda _: None,
) -> CrawlView:
    """Ship the source and create the crawl; workers begin at once.

    Args:
        before: called before the crawl is there, for what must be kept if we end right after.
        session: the owner; None for a detached crawl.
        collector: the session that collects what the crawl brings; None: who comes.
        env: environment that its workers must have; empty for any.

    Raises:
        ConfigError: a setting cannot be sent, or a number is none.
    """
    shipped = order.shipped
    in_force = order.in_force | order.settings
    queue = str(in_force.get("SCHEDULER_MEMORY_QUEUE", ""))
    ground = placement.survey(shipped.digest)
    spec = CrawlSpec(
        crawl_id=new_crawl_id(),
        spider=order.spider,
        bundle=shipped.digest,
        args=order.args,
        settings=_encoded(order.settings),
        session=session,
        workers=order.workers_max,
        lifo=not queue.endswith(_FIFO_QUEUES),
        keep_open=order.keep_open,
        limits=limits_in(in_force),
        env=env,
        only=order.only,
        out_bytes_max=ground.defaults.out_bytes_max,
        breaks=order.breaks,
        pdb=order.pdb,
        record_bytes=order.record_bytes,
    )
    if env:
        spec = msgspec.structs.replace(spec, settings=_encoded(order.settings | _cache(order)))
    before(spec)
    return placement.create(spec, ground, shipped.bundle, collector=collector)


def _cache(order: Order) -> dict[str, str]:
    """Where Scrapy itself has its HTTP cache here, for workers of this machine and user.

    So pages are fetched once for all workers, once for all runs, and once with `scrapy crawl`, too.
    """
    path = Path(order.text("HTTPCACHE_DIR", "httpcache"))
    if path.is_absolute() or not order.flag("HTTPCACHE_ENABLED", default=False):
        return {}
    return {"HTTPCACHE_DIR": str((Path(order.root) if order.root else Path.cwd()) / _DATA / path)}


def _encoded(settings: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    codec = Codec()
    encoded = {}
    for name, value in settings.items():
        try:
            encoded[name] = msgspec.Raw(codec.encode(value))
        except CannotCrossError as exc:
            raise ConfigError(f"the setting {name} cannot be sent: {exc}") from exc
    return encoded


def limits_in(settings: Mapping[str, Any]) -> CloseLimits:
    """Limits that hold for the whole crawl.

    Raises:
        ConfigError: one is no number.
    """

    def number(name: str) -> float:
        value = settings.get(name) or 0
        try:
            return float(value)
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"{name}={value}: a number is needed") from exc

    return CloseLimits(
        items=int(number("CLOSESPIDER_ITEMCOUNT")),
        pages=int(number("CLOSESPIDER_PAGECOUNT")),
        errors=int(number("CLOSESPIDER_ERRORCOUNT")),
        timeout_ms=int(1000 * number("CLOSESPIDER_TIMEOUT")),
        no_item_ms=int(1000 * number("CLOSESPIDER_TIMEOUT_NO_ITEM")),
        no_item_pages=int(number("CLOSESPIDER_PAGECOUNT_NO_ITEM")),
    )
