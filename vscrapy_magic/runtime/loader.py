"""Owns how shipped source becomes a spider class and its settings, in a child's own folder.

Runs in a child before its event loop starts. Cells are run as the module `__main__`, so
that classes which are found by name behave as where the code was written.
"""

import inspect
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any, Final

import msgspec
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.utils.misc import load_object

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.runtime.entry import entry_code, name_modules
from vscrapy_magic.store.files import mark_shipped
from vscrapy_magic.store.messages import Bundle, CloseLimits, CrawlSpec
from vscrapy_magic.store.values import Codec

logger = logging.getLogger(__name__)

FORCED_PRIORITY: Final = 100  # above the command line's 40: children cannot do otherwise
CMDLINE_PRIORITY: Final = "cmdline"
KEEPS_STATE: Final = "VSCRAPY_KEEPS_STATE"  # in a child: the spider has a `state`, as with a JOBDIR
SPIDER_NAME: Final = "_vscrapy_spider"  # of the class, in the module that holds it
_FORCED: Final[dict[str, Any]] = {
    "SCHEDULER": "vscrapy_magic.runtime.scheduler.LeaseScheduler",
    "STATS_CLASS": "vscrapy_magic.runtime.stats.CrawlStats",
    # Each would open a port, or write a file, once per child.
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
    "JOBDIR": None,
    "FEEDS": {},
    "LOG_FILE": None,
    # The sender dumps those of the whole crawl, once.
    "STATS_DUMP": False,
    "TWISTED_REACTOR_ENABLED": True,
}
# Off in a child, and still imported by Scrapy (2.19), with aiohttp: 80 ms.
NOT_LOADED: Final = frozenset({"scrapy.extensions.remote_control.RemoteControl"})
_EXTENSIONS: Final = "EXTENSIONS_BASE"
_SAID_WHEN_SET: Final = ("JOBDIR", "FEEDS", "SCHEDULER", "STATS_CLASS")


class LoadError(VscrapyError):
    """The shipped source does not give the spider that was ordered."""


def write_files(bundle: Bundle, folder: Path) -> None:
    """Put the bundle's files into the child's folder.

    Raises:
        LoadError: a path leads out of the folder.
    """
    root = folder.resolve()
    for name, content in bundle.files.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise LoadError(f"the bundle's file {name!r} would be written outside of {root}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        mark_shipped(path)


def prepare(bundle: Bundle, folder: Path) -> None:
    """Make the folder the place that imports look in first, and set the environment."""
    os.environ.update(bundle.env)
    sys.path.insert(0, str(folder))
    if bundle.project:
        os.environ["SCRAPY_SETTINGS_MODULE"] = bundle.project


def run_entry(bundle: Bundle, folder: Path) -> types.ModuleType | None:
    """Run the entry; None when there is none (a project's spider).

    Cells are run as `__main__`, as in their notebook. A file is a module of its name, as `scrapy
    runspider` imports it: what it guards with `if __name__ == "__main__"` does not run. In a fresh
    process, or in one forked from a zygote.
    """
    if not bundle.entry:
        return None
    path = folder / bundle.entry
    name = "__main__" if bundle.cells else path.stem
    module = types.ModuleType(name)
    module.__file__ = str(path)
    module.__dict__["__builtins__"] = __builtins__
    # What was `__main__` so far must stay alive: its functions are on the stack.
    module.__dict__["_vscrapy_launcher"] = sys.modules["__main__"]
    module.__dict__[SPIDER_NAME] = bundle.spider
    sys.modules[name] = module
    if any(other.endswith(".py") and other != bundle.entry for other in bundle.files):
        name_modules(folder)
    for code in entry_code(bundle):
        exec(code, module.__dict__)  # noqa: S102 - running shipped code is what a child is for
    return module


def find_spider(module: types.ModuleType | None, name: str, settings: Settings) -> type[Spider]:
    """The spider class that was ordered.

    Raises:
        LoadError: there is none of that name.
    """
    if module is not None:
        shipped = vars(module).get(vars(module).get(SPIDER_NAME, ""))
        if inspect.isclass(shipped) and issubclass(shipped, Spider):
            return shipped
        found = _classes(module)
        named = [kind for kind in found if getattr(kind, "name", None) == name]
        named = named or [kind for kind in found if kind.__name__ == name]
        if named:
            return named[-1]
        if len(found) == 1:
            return found[0]
    if settings.getlist("SPIDER_MODULES"):
        loader = load_object(settings["SPIDER_LOADER_CLASS"]).from_settings(settings)
        try:
            kind: type[Spider] = loader.load(name)
        except KeyError as exc:
            raise LoadError(f"the project has no spider {name!r}") from exc
        return kind
    names = sorted(str(getattr(kind, "name", kind.__name__)) for kind in _classes(module))
    raise LoadError(f"no spider {name!r} in the shipped source; there is {names or 'none'}")


def _classes(module: types.ModuleType | None) -> list[type[Spider]]:
    """Spider classes that the entry file defines; else those that it imports."""
    if module is None:
        return []
    kinds = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Spider) and kind is not Spider
    ]
    own = [kind for kind in kinds if kind.__module__ == module.__name__]
    return own or [kind for kind in kinds if not kind.__module__.startswith("scrapy.")]


def read_settings(bundle: Bundle, spec: CrawlSpec) -> Settings:
    """Scrapy's defaults, the project's settings, and what was given with the order."""
    settings = Settings()
    if bundle.project:
        settings.setmodule(bundle.project, priority="project")
    codec = Codec()
    for name, raw in spec.settings.items():
        settings.set(name, codec.decode(bytes(raw)), priority=CMDLINE_PRIORITY)
    return settings


def force_settings(settings: Settings, wished: Settings, limits: CloseLimits) -> None:
    """Make settings such that a child can work with them; says once what it does not do.

    Args:
        wished: the settings with those of the spider.
    """
    for name in _SAID_WHEN_SET:
        if wished.get(name) and (wished.getpriority(name) or 0) > 0:
            logger.info("%s has no effect in a worker: %s", name, _WHY[name])
    if wished.getbool("HTTPCACHE_ENABLED") and not Path(wished["HTTPCACHE_DIR"]).is_absolute():
        logger.warning(
            "HTTPCACHE_ENABLED: each worker has a cache of its own, for this crawl alone; "
            "give HTTPCACHE_DIR an absolute path to keep one on each machine"
        )
    for name, value in _FORCED.items():
        settings.set(name, value, priority=FORCED_PRIORITY)
    settings.set(KEEPS_STATE, bool(wished.get("JOBDIR")), priority=FORCED_PRIORITY)
    for name in _limits_set(limits):
        settings.set(name, 0, priority=FORCED_PRIORITY)
    extensions = settings[_EXTENSIONS]
    for name in NOT_LOADED & extensions.keys():
        extensions.delete(name)


_WHY: Final[dict[str, str]] = {
    "JOBDIR": "the crawl's state is in Redis",
    "FEEDS": "the sender writes the feeds",
    "SCHEDULER": "all workers share one queue",
    "STATS_CLASS": "all workers share one set of stats",
}


def _limits_set(limits: CloseLimits) -> list[str]:
    """CLOSESPIDER_* that are counted over the whole crawl: no child is to count them for itself."""
    names = {
        "CLOSESPIDER_ITEMCOUNT": limits.items,
        "CLOSESPIDER_PAGECOUNT": limits.pages,
        "CLOSESPIDER_ERRORCOUNT": limits.errors,
        "CLOSESPIDER_TIMEOUT": limits.timeout_ms,
        "CLOSESPIDER_TIMEOUT_NO_ITEM": limits.no_item_ms,
        "CLOSESPIDER_PAGECOUNT_NO_ITEM": limits.no_item_pages,
    }
    return [name for name, limit in names.items() if limit]


def encode_settings(settings: dict[str, Any]) -> dict[str, msgspec.Raw]:
    """Settings as an order carries them."""
    codec = Codec()
    return {name: msgspec.Raw(codec.encode(value)) for name, value in settings.items()}
