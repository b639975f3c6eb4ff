"""Owns how the helpers of a sender load its user's code: a spider's file, or a whole project.

Runs in processes of their own on the sender's machine (`inspect.py`, `feeds.py`). Files are read
where they are; settings are put together in the order in which Scrapy's command line does it.
"""

import functools
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from scrapy import Spider
from scrapy.exceptions import UsageError
from scrapy.settings import Settings
from scrapy.utils.conf import closest_scrapy_cfg, feed_process_params_from_cli
from scrapy.utils.misc import load_object
from scrapy.utils.project import ENVVAR, get_project_settings
from scrapy.utils.spider import iter_spider_classes

from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.store.inspection import Source

CMDLINE: Final = "cmdline"
_PLACEHOLDER: Final = re.compile(r"%\(([^)]+)\)")  # in addresses of feeds
_URI_TIMES: Final = frozenset({"time", "batch_time", "batch_id"})  # known to the exporter
_NOT_SPIDERS: Final = frozenset({"__main__", "sitecustomize", "usercustomize"})
_OURS: Final = Path(__file__).resolve().parents[1]


class SourceError(VscrapyError):
    """The source cannot be loaded, or holds no such spider; the message is one line."""


@dataclass(frozen=True)
class Loaded:
    """A spider's class and what is in force for it.

    Attributes:
        names: all spiders that are there.
        entry: the module made of the spider's file; None for a spider of a project.
        settings: in force for this spider, feeds of the command line included.
        project: dotted name of the project's settings module; empty outside of projects.
    """

    kind: type[Spider]
    names: tuple[str, ...]
    entry: ModuleType | None
    settings: Settings
    project: str


class NoSpiderError(SourceError):
    """There are spiders, but none of this name."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


def load(source: Source) -> Loaded:
    """Import what the source names; runs its user's code.

    Raises:
        SourceError: it fails, or holds no such spider; with file and line when they are known.
    """
    if source.folder:
        sys.path.insert(0, source.folder)
    try:
        settings = get_project_settings()
        settings.setdict(source.settings, priority=CMDLINE)
        _set_feeds(settings, source)
        entry = _import_file(Path(source.entry)) if source.entry else None
        kinds = _in_file(entry) if entry is not None else _in_project(settings)
        kind = _chosen(kinds, source)
        kind.update_settings(settings)
    except SourceError:
        raise
    except UsageError as exc:
        raise SourceError(" ".join(str(exc).split())) from exc
    except BaseException as exc:
        # Whatever user code raises at import, SystemExit included, is its user's to hear of.
        raise SourceError(describe(exc)) from exc
    names = tuple(dict.fromkeys(str(each.name) for each in kinds))
    return Loaded(kind, names, entry, settings, os.environ.get(ENVVAR, ""))


def load_plain(source: Source) -> Loaded:
    """Only the feeds that the source names, for items whose own source is not here."""
    kind = type("Plain", (Spider,), {"name": source.spider})
    settings = Settings(source.settings, priority=CMDLINE)
    _set_feeds(settings, source)
    return Loaded(kind, (source.spider,), None, settings, "")


def feeds_of(settings: Settings) -> dict[Any, dict[str, Any]]:
    """The feeds in force, with their options: FEEDS, and the FEED_URI of old."""
    feeds = dict(settings.getdict("FEEDS"))
    if settings["FEED_URI"]:
        return {settings["FEED_URI"]: {"format": settings["FEED_FORMAT"]}} | feeds
    return feeds


def _set_feeds(settings: Settings, source: Source) -> None:
    """As `-o` and `-O` of Scrapy's command line, before the spider's own settings come in."""
    if source.output or source.overwrite:
        feeds = feed_process_params_from_cli(
            settings, list(source.output), overwrite_output=list(source.overwrite)
        )
        settings.set("FEEDS", feeds, priority=CMDLINE)


def _import_file(path: Path) -> ModuleType:
    """The file as a module of its name, as `scrapy runspider` imports it."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SourceError(f"{path}: a spider file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _in_file(module: ModuleType) -> list[type[Spider]]:
    return list(iter_spider_classes(module))


def _in_project(settings: Settings) -> list[type[Spider]]:
    if not os.environ.get(ENVVAR) and not closest_scrapy_cfg():
        raise SourceError(
            f"{Path.cwd()} is in no Scrapy project: there is no scrapy.cfg here or above; "
            "go into one, or run one file with `vscrapy runspider FILE`"
        )
    loader = load_object(settings["SPIDER_LOADER_CLASS"]).from_settings(settings.frozencopy())
    return [loader.load(name) for name in loader.list()]


def _chosen(kinds: list[type[Spider]], source: Source) -> type[Spider]:
    where = Path(source.entry).name if source.entry else "this project"
    if not kinds:
        raise SourceError(f"{where}: no spider in it (a class of scrapy.Spider with a name)")
    if not source.spider:
        return kinds[-1]
    named = [kind for kind in kinds if kind.name == source.spider]
    if not named:
        names = tuple(dict.fromkeys(str(kind.name) for kind in kinds))
        raise NoSpiderError(f"no spider {source.spider!r} in {where}", names)
    return named[-1]


def spider_facts(loaded: Loaded, args: dict[str, str]) -> dict[str, Any]:
    """Attributes of the spider, which addresses of feeds may name, as far as they are known.

    Those of its class and its arguments. The spider itself is made only when an address, or a
    function of the user's that completes addresses, needs more: that runs its `__init__`.

    Raises:
        SourceError: an address names what the spider does not have.
    """
    kind, feeds = loaded.kind, loaded.settings.getdict("FEEDS")
    facts = {
        name: value
        for each in reversed(kind.__mro__)
        for name, value in vars(each).items()
        if not name.startswith("__") and not hasattr(value, "__get__")
    } | args
    needed = {name for uri in feeds for name in _PLACEHOLDER.findall(str(uri))} - _URI_TIMES
    has_function = loaded.settings["FEED_URI_PARAMS"] or any(
        options.get("uri_params") for options in feeds.values()
    )
    if needed - facts.keys() or has_function:
        from scrapy.crawler import Crawler  # 25 ms that only this needs

        made = kind.from_crawler(Crawler(kind, loaded.settings.copy()), **args)
        facts |= {k: v for k, v in vars(made).items() if k not in {"crawler", "settings"}}
    missing = sorted(needed - facts.keys())
    if missing and not has_function:
        name = missing[0]
        raise SourceError(
            f"a feed's address has %({name})s, but {kind.__name__} has no {name}: give it with "
            f"-a {name}=VALUE"
        )
    return facts


def describe(exc: BaseException) -> str:
    """An exception of user code in one line, with the innermost line of theirs that led to it."""
    text = " ".join(str(exc).split()) or "no message"
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{shown(exc.filename)}, line {exc.lineno}: {exc.msg}"
    frames = [
        frame for frame in traceback.extract_tb(exc.__traceback__) if is_users(frame.filename)
    ]
    where = f"{shown(frames[-1].filename)}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(exc).__name__}: {text}"


def shown(path: str) -> str:
    """A path as it is typed here: relative when it lies below the working folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


def is_users(path: str) -> bool:
    """Whether a file is neither Python's, nor ours, nor of an installed package."""
    if not path or path.startswith("<"):
        return False
    found = Path(path)
    return _holds_users(found.resolve().parent if found.is_symlink() else found.parent)


@functools.cache
def _holds_users(folder: Path) -> bool:
    """The same of a folder; kept, because to resolve a thousand paths takes 100 ms."""
    resolved = folder.resolve()
    return not any(resolved.is_relative_to(other) for other in _not_users())


@functools.cache
def _not_users() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return (_OURS, *(Path(sysconfig.get_path(name)).resolve() for name in names))


def users_modules() -> dict[str, ModuleType]:
    """Modules imported so far that are the user's own."""
    return {
        name: module
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str)
        and name not in _NOT_SPIDERS
        and is_users(file)
    }


def plain(value: Any) -> Any:
    """A setting as plain data: classes by path, what has no plain form as its text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if inspect.isclass(value) or inspect.isroutine(value):  # before: an item's class has items()
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "items"):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return str(value)
