"""Owns what is ordered: a spider file with its options, made into a bundle and a crawl's spec.

Runs in the sender's process. The file is shipped as source and executed by the children only.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.store.crawls import Crawls, new_crawl_id
from vscrapy_magic.store.keys import SessionId
from vscrapy_magic.store.messages import Bundle, CloseLimits, CrawlSpec, encode

BUNDLE_BYTES: Final = 50 * 1024 * 1024  # of all shipped files together
_FIFO_QUEUES: Final = "FifoMemoryQueue"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One crawl as the user asked for it.

    Attributes:
        spider: name, or empty for the only spider of the file.
        workers: at most so many; 0 means all.
    """

    path: Path
    spider: str = ""
    args: dict[str, str] = {}
    settings: dict[str, str] = {}
    workers: int = 0


def pairs(options: Sequence[str], letter: str) -> dict[str, str]:
    """NAME=VALUE options as a dictionary; later ones win.

    Raises:
        ConfigError: one has no `=`.
    """
    found = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator or not name:
            raise ConfigError(f"{letter} {option}: write it as {letter} NAME=VALUE")
        found[name] = value
    return found


def place(order: Order, crawls: Crawls, session: SessionId | None) -> CrawlSpec:
    """Ship the source and create the crawl; workers begin at once.

    Raises:
        ConfigError: the file cannot be read, is no Python or too large, or a number is none.
    """
    bundle = _bundle(order.path)
    digest = hashlib.sha256(encode(bundle)).hexdigest()
    spec = CrawlSpec(
        crawl_id=new_crawl_id(),
        spider=order.spider,
        bundle=digest,
        args=order.args,
        settings={
            name: msgspec.Raw(msgspec.msgpack.encode(value))
            for name, value in order.settings.items()
        },
        session=session,
        workers=order.workers,
        lifo=not order.settings.get("SCHEDULER_MEMORY_QUEUE", "").endswith(_FIFO_QUEUES),
        limits=_limits(order.settings),
    )
    crawls.put_bundle(bundle, digest)
    crawls.create(spec)
    return spec


def _bundle(path: Path) -> Bundle:
    try:
        source = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if path.suffix not in {".py", ".pyw"}:
        raise ConfigError(f"{path}: a spider file ends in .py")
    if len(source) > BUNDLE_BYTES:
        raise ConfigError(f"{path}: larger than {BUNDLE_BYTES >> 20} MB")
    try:
        compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"{where}: {getattr(exc, 'msg', exc)}") from exc
    return Bundle(files={path.name: source}, entry=path.name)


def _limits(settings: dict[str, str]) -> CloseLimits:
    def number(name: str) -> float:
        value = settings.get(name, "0")
        try:
            return float(value)
        except ValueError as exc:
            raise ConfigError(f"-s {name}={value}: a number is needed") from exc

    return CloseLimits(
        items=int(number("CLOSESPIDER_ITEMCOUNT")),
        pages=int(number("CLOSESPIDER_PAGECOUNT")),
        errors=int(number("CLOSESPIDER_ERRORCOUNT")),
        timeout_ms=int(1000 * number("CLOSESPIDER_TIMEOUT")),
    )
