"""Owns which settings of a running crawl may change, and how a change reaches its children.

Used by senders (set) and children (get). A change is written with a new number, which every step
reply tells; a child that sees it move fetches the settings. All children are woken, so that this
takes milliseconds. What counts for the whole crawl (CLOSESPIDER_*, workers) is in force at once.
"""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from vscrapy_magic.errors import ConfigError, CrawlNotFoundError, StateError
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.frontier import READY_PER_CHILD
from vscrapy_magic.store.keys import CrawlId, WorkerName, crawl_key, crawl_prefix, global_key
from vscrapy_magic.store.placement import ask_wakes
from vscrapy_magic.store.scripts import load_script

Value = str | int | float | bool

WORKERS: Final = "workers"
_WORKER_SET_MS: Final = 24 * 3600 * 1000  # how long a worker that restarts finds its setting again
_NEAR: Final = 0.75  # likeness of two names from which one is taken for a slip of the other
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class _NotThatError(Exception):
    """What would be needed instead of a value."""


def _text(value: Value) -> str:
    return str(value).strip()


def _level(value: Value) -> str | int:
    levels = logging.getLevelNamesMapping()
    text = _text(value).upper()
    if text.isdecimal() and int(text) <= logging.CRITICAL:
        return int(text)
    if text not in levels:
        near = difflib.get_close_matches(text, levels, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise _NotThatError(f"a level is needed{hint}: DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return text


def _truth(value: Value) -> bool:
    text = _text(value).lower()
    if text not in _TRUE | _FALSE:
        raise _NotThatError("True or False is needed")
    return text in _TRUE


def _whole(least: int) -> Callable[[Value], int]:
    def parse(value: Value) -> int:
        text = _text(value)
        if not text.isdecimal() or int(text) < least or isinstance(value, bool):
            raise _NotThatError(f"a whole number is needed, {least} or more")
        return int(text)

    return parse


def _seconds(value: Value) -> float:
    return _number(value, "a number of seconds is needed, 0 or more")


def _above_zero(value: Value) -> float:
    what = "a number is needed, more than 0"
    number = _number(value, what)
    if not number:
        raise _NotThatError(what)
    return number


def _number(value: Value, what: str) -> float:
    try:
        number = float(_text(value))
    except ValueError as exc:
        raise _NotThatError(what) from exc
    if not 0 <= number < float("inf"):  # also false for nan
        raise _NotThatError(what)
    return number


CHANGEABLE: Final[dict[str, Callable[[Value], Value]]] = {
    "LOG_LEVEL": _level,
    "DOWNLOAD_DELAY": _seconds,
    "RANDOMIZE_DOWNLOAD_DELAY": _truth,
    "DOWNLOAD_TIMEOUT": _seconds,
    "CONCURRENT_REQUESTS": _whole(0),
    "CONCURRENT_REQUESTS_PER_DOMAIN": _whole(1),
    "AUTOTHROTTLE_TARGET_CONCURRENCY": _above_zero,
    "CLOSESPIDER_ITEMCOUNT": _whole(0),
    "CLOSESPIDER_PAGECOUNT": _whole(0),
    "CLOSESPIDER_ERRORCOUNT": _whole(0),
    "CLOSESPIDER_TIMEOUT": _seconds,
    WORKERS: _whole(0),
}
WORKER_SETTINGS: Final[dict[str, Callable[[Value], int]]] = {"slots": _whole(0)}

# Settings that the scripts judge by: field of meta, and what one of the setting is there.
_META: Final[dict[str, tuple[str, int]]] = {
    "CLOSESPIDER_ITEMCOUNT": ("limit_items", 1),
    "CLOSESPIDER_PAGECOUNT": ("limit_pages", 1),
    "CLOSESPIDER_ERRORCOUNT": ("limit_errors", 1),
    "CLOSESPIDER_TIMEOUT": ("limit_timeout_ms", 1000),
    WORKERS: (WORKERS, 1),
}


def parse_settings(
    values: Mapping[str, Value], parsers: Mapping[str, Callable[[Value], Value]] = CHANGEABLE
) -> dict[str, Value]:
    """Values as users type them, as what children set.

    Raises:
        ConfigError: a name that is unknown or cannot be changed while a crawl runs, or a value that
            is none of its kind; one line that says what can be.
    """
    parsed: dict[str, Value] = {}
    for name, value in values.items():
        parser = parsers.get(name)
        if parser is None:
            whose = "a crawl" if parsers is CHANGEABLE else "a worker"
            raise ConfigError(f"{name} cannot be changed while {whose} runs{_can(name, parsers)}")
        try:
            parsed[name] = parser(value)
        except _NotThatError as exc:
            raise ConfigError(f"{name}={value}: {exc}") from None
    return parsed


def _can(name: str, parsers: Mapping[str, object]) -> str:
    known = {each.lower(): each for each in parsers}
    near = difflib.get_close_matches(name.lower(), known, 1, _NEAR)
    hint = f"; did you mean {known[near[0]]}?" if near else ";"
    verb = " These can" if near else " can"
    return f"{hint}{verb}: {', '.join(parsers)}"


class Control:
    """Settings of running crawls; thread-safe, every call blocks for one round trip."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, crawl_id: CrawlId, values: Mapping[str, Value]) -> int:
        """Change settings of a running crawl, all or none; children follow within a second.

        `workers` that are too many finish what they hold and leave; 0 means all.

        Returns:
            The number of the settings; a child whose steps name it has them.

        Raises:
            ConfigError: see `parse_settings`; nothing was changed.
            StateError: the crawl is over, or about to end.
        """
        parsed = parse_settings(values)
        if not parsed:
            raise ConfigError("name a setting and its value, as in LOG_LEVEL=DEBUG")
        fields: list[str | int] = []
        for name in _META.keys() & parsed.keys():
            field, unit = _META[name]
            fields += [field, round(float(parsed[name]) * unit)]
        args: list[bytes | str | int] = [READY_PER_CHILD, len(fields) // 2, *fields]
        for name, value in parsed.items():
            args += [name, msgspec.msgpack.encode(value)]
        reply = self._store.call(load_script("control"), (crawl_prefix(crawl_id),), args)
        if reply[0] == b"over":
            raise StateError(
                f"crawl {crawl_id} is {reply[1].decode()}: its settings cannot be changed any more"
            )
        if reply[0] != b"ok":
            raise CrawlNotFoundError(
                f"crawl {crawl_id}: not on {self._store.address}; `vscrapy -l` lists those there"
            )
        return int(reply[1])

    def get(self, crawl_id: CrawlId) -> tuple[int, dict[str, Value]]:
        """The number of a crawl's settings, and all that were changed since it was ordered."""
        with self._store.errors_wrapped():
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hget(crawl_key(crawl_id, "meta"), "control")
            pipe.hgetall(crawl_key(crawl_id, "control"))
            number, raw = pipe.execute()
        return int(number or 0), {
            name.decode(): msgspec.msgpack.decode(value) for name, value in raw.items()
        }

    def set_worker(self, worker: WorkerName, values: Mapping[str, Value]) -> None:
        """Change settings of a worker (`slots`); it follows with its next look, which is at once.

        Raises:
            ConfigError: see `parse_settings`, or no such worker is there.
        """
        parsed = parse_settings(values, WORKER_SETTINGS)
        if not parsed:
            raise ConfigError(f"name what to change of worker {worker}, as in slots=4")
        with self._store.errors_wrapped():
            client = self._store.client
            names = sorted(raw.decode() for raw in client.hkeys(global_key("workers")))
            if worker not in names:
                near = difflib.get_close_matches(worker, names, 1)
                there = "`%vworkers` and `vscrapy workers` list them"
                hint = f"did you mean {near[0]}?" if near else there
                raise ConfigError(f"there is no worker {worker}; {hint}")
            pipe = client.pipeline(transaction=True)
            data = msgspec.msgpack.encode(parsed)
            pipe.set(global_key(f"worker-set:{worker}"), data, px=_WORKER_SET_MS)
            ask_wakes(pipe, [worker])
            pipe.execute()

    def worker_settings(self, worker: WorkerName) -> dict[str, int]:
        """What a user has changed of a worker."""
        return self.workers_settings([worker]).get(worker, {})

    def workers_settings(self, workers: Sequence[WorkerName]) -> dict[WorkerName, dict[str, int]]:
        """What users have changed of these workers; read by their process, for all at once."""
        keys = [global_key(f"worker-set:{worker}") for worker in workers]
        with self._store.errors_wrapped():
            found = self._store.client.mget(keys)
        return {
            worker: msgspec.msgpack.decode(data, type=dict[str, int])
            for worker, data in zip(workers, found, strict=True)
            if data is not None
        }
