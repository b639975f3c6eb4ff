"""Owns which objects travel as values, as which source, and what of the rest cannot travel at all.

Runs in the sender's process. Libraries are told by the names of their modules: none is imported.
"""

import asyncio
import collections
import datetime
import decimal
import io
import pathlib
import queue
import re
import socket
import subprocess
import threading
import types
import uuid
from collections.abc import Callable
from typing import Any, Final

from vscrapy_magic.errors import VscrapyError

DEPTH_MAX: Final = 50  # of nested containers; deeper ones would break the compiler of the worker


class CannotShipError(VscrapyError):
    """Something that the spider uses exists in the sender's process only; nothing was started."""


class NotPlainError(Exception):
    """A value is more than plain data, so no literal says what it is."""


def literal(value: Any) -> str:
    """Source of one line that gives an equal value, with no name but of builtins.

    Raises:
        NotPlainError: the value is, or holds, more than plain data.
    """
    return _literal(value, 0)


def is_writable(value: Any) -> bool:
    """Whether `literal` can say what the value is."""
    try:
        literal(value)
    except NotPlainError:
        return False
    return True


def is_plain(value: Any) -> bool:
    """Whether the value is plain data: always writable, and best written as it is now."""
    return is_writable(value) and not _is_made(value)


def _is_made(value: Any) -> bool:
    """Whether there are patterns or paths in a writable value: better shipped as their source."""
    if isinstance(value, re.Pattern | pathlib.PurePath):
        return True
    if isinstance(value, dict):
        return any(_is_made(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return any(_is_made(each) for each in value)
    return False


def _literal(value: Any, depth: int) -> str:
    if depth > DEPTH_MAX:
        raise NotPlainError
    kind = type(value)
    write = _WRITERS.get(kind)
    if write is not None:
        return write(value, depth + 1)
    if kind.__module__ == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return _literal(value.item(), depth + 1)  # a cell of a DataFrame or an array
    raise NotPlainError


def _simple(value: Any, _depth: int) -> str:
    return repr(value)


def _float(value: float, _depth: int) -> str:
    text = repr(value)
    return text if text[-1].isdigit() else f"float({text!r})"


def _all(values: Any, depth: int) -> str:
    return ", ".join(_literal(each, depth) for each in values)


def _pairs(value: Any, depth: int) -> str:
    pairs = (f"{_literal(k, depth)}: {_literal(v, depth)}" for k, v in value.items())
    return "{" + ", ".join(pairs) + "}"


def _list(value: list[Any], depth: int) -> str:
    return f"[{_all(value, depth)}]"


def _tuple(value: tuple[Any, ...], depth: int) -> str:
    return f"({_all(value, depth)}{',' if len(value) == 1 else ''})"


def _set(value: set[Any], depth: int) -> str:
    # Sorted, so that equal sets give equal bundles.
    inner = ", ".join(sorted(_literal(each, depth) for each in value))
    return f"{{{inner}}}" if inner else "set()"


def _frozenset(value: frozenset[Any], depth: int) -> str:
    return f"frozenset({_set(set(value), depth)})"


def _made_of(module: str, name: str) -> Callable[[Any, int], str]:
    def write(value: Any, depth: int) -> str:
        inner = _pairs(value, depth) if isinstance(value, dict) else _list(list(value), depth)
        return f"__import__({module!r}).{name}({inner})"

    return write


def _deque(value: collections.deque[Any], depth: int) -> str:
    return f"__import__('collections').deque({_list(list(value), depth)}, {value.maxlen})"


def _defaultdict(value: collections.defaultdict[Any, Any], depth: int) -> str:
    factory = value.default_factory
    if factory is not None and (not isinstance(factory, type) or factory.__module__ != "builtins"):
        raise NotPlainError
    name = "None" if factory is None else factory.__name__
    return f"__import__('collections').defaultdict({name}, {_pairs(dict(value), depth)})"


def _dated(value: Any, _depth: int) -> str:
    zone = getattr(value, "tzinfo", None)
    if zone not in {None, datetime.UTC}:
        raise NotPlainError
    return re.sub(r"\bdatetime\.", "__import__('datetime').", repr(value))


def _pattern(value: re.Pattern[Any], _depth: int) -> str:
    return f"__import__('re').compile({value.pattern!r}, {value.flags})"


def _from_text(module: str, name: str) -> Callable[[Any, int], str]:
    def write(value: Any, _depth: int) -> str:
        return f"__import__({module!r}).{name}({str(value)!r})"

    return write


_WRITERS: Final[dict[type, Callable[[Any, int], str]]] = {
    **dict.fromkeys((type(None), bool, int, str, bytes, bytearray, complex, range), _simple),
    float: _float,
    list: _list,
    tuple: _tuple,
    dict: _pairs,
    set: _set,
    frozenset: _frozenset,
    collections.OrderedDict: _made_of("collections", "OrderedDict"),
    collections.Counter: _made_of("collections", "Counter"),
    collections.deque: _deque,
    collections.defaultdict: _defaultdict,
    **dict.fromkeys((datetime.datetime, datetime.date, datetime.time, datetime.timedelta), _dated),
    decimal.Decimal: _from_text("decimal", "Decimal"),
    uuid.UUID: _from_text("uuid", "UUID"),
    re.Pattern: _pattern,
    pathlib.PosixPath: _from_text("pathlib", "Path"),
    pathlib.PurePosixPath: _from_text("pathlib", "PurePosixPath"),
}

_IN_SPIDER: Final = "make it where it is used: in the spider's start() or __init__()"
_OPENED: Final = (
    "open it in the spider (or in open_spider of a pipeline) and name the file by a path relative "
    "to the notebook, then the file travels too"
)
_AS_DATA: Final = (
    'turn what you need of it into plain data first, as in urls = df["url"].tolist(), and use that'
)
_AS_MODEL: Final = (
    "load it in the spider's __init__() from a file beside the notebook (which travels too), or "
    "apply it to crawl.items afterwards"
)
_LOCKS: Final = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.Semaphore,
    threading.Thread,
    threading.local,
    asyncio.Event,
    asyncio.Lock,
    asyncio.Semaphore,
    asyncio.Queue,
    queue.Queue,
)
_GENERATORS: Final = (
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.CoroutineType,
    asyncio.Future,
)
_KINDS: Final[tuple[tuple[tuple[type, ...], str, str], ...]] = (
    ((io.IOBase,), "an open file", _OPENED),
    ((socket.socket,), "an open socket", _IN_SPIDER),
    (_LOCKS, "a lock, thread or queue of this process", _IN_SPIDER),
    (_GENERATORS, "something half run", "make it a list, or the generator function it comes from"),
    ((subprocess.Popen,), "a running process", _IN_SPIDER),
    ((memoryview, types.FrameType, types.TracebackType), "part of this process", _IN_SPIDER),
)
_MODULES: Final[dict[str, tuple[str, str]]] = {
    **dict.fromkeys(("pandas", "polars", "pyarrow", "geopandas"), ("a table", _AS_DATA)),
    **dict.fromkeys(
        (
            *("torch", "tensorflow", "keras", "jax", "sklearn", "xgboost", "lightgbm", "catboost"),
            *("spacy", "transformers", "sentence_transformers", "gensim", "onnxruntime"),
        ),
        ("a model", _AS_MODEL),
    ),
    **dict.fromkeys(
        ("sqlite3", "psycopg", "psycopg2", "pymysql", "MySQLdb", "selenium", "playwright"),
        ("an open connection", _IN_SPIDER),
    ),
    **dict.fromkeys(("multiprocessing", "concurrent"), ("part of this process", _IN_SPIDER)),
    **dict.fromkeys(
        ("IPython", "ipykernel", "ipywidgets"),
        ("part of the notebook", "use it outside of the spider"),
    ),
}
_SCRAPY_CAPTURES: Final = ("scrapy.http.response", "scrapy.selector", "parsel", "scrapy.crawler")


def why_not(value: Any) -> tuple[str, str] | None:
    """What an object is that cannot travel, and what to do instead; None for all others."""
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        return why_not(owner)  # a method of an object is as good as the object
    if isinstance(value, type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType):
        return None
    for kinds, what, advice in _KINDS:
        if isinstance(value, kinds):
            return f"{what}, {name_of(type(value))}", advice
    for base in type(value).__mro__:
        found = _MODULES.get(base.__module__.partition(".")[0])
        if found is not None:
            return f"{found[0]}, {name_of(type(value))}", found[1]
        if base.__module__.startswith(_SCRAPY_CAPTURES):
            return f"something fetched, {name_of(type(value))}", _AS_DATA
    return None


def name_of(kind: type) -> str:
    """A class as users know it: `pandas.DataFrame`, not where its module is hidden."""
    module = kind.__module__.partition(".")[0].lstrip("_")
    return kind.__qualname__ if module in {"builtins", ""} else f"{module}.{kind.__qualname__}"
