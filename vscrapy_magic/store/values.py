"""Owns how Python values cross a process border: msgpack, with a tag for each type that it lacks.

Runs in children, and wherever their packets are read. Nothing is pickled: an object crosses as the
path of its class and its plain state, and `decode` builds only what its `resolve` lets it build.
Equal values give equal bytes (sets are sorted), because outputs are told apart by their bytes.
"""

import dataclasses
import datetime
import decimal
import enum
import importlib
import pathlib
import re
import sys
import types
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from vscrapy_magic.errors import VscrapyError

Resolve = Callable[[str], Any]


class CannotCrossError(VscrapyError):
    """A value holds something that only this process can hold (an open file, a lambda, a lock)."""


class Tag(enum.IntEnum):
    """What an extension type of a packet means; numbers are never used for another thing."""

    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DATETIME = 4
    DATE = 5
    TIME = 6
    TIMEDELTA = 7
    DECIMAL = 8
    PAIRS = 9  # a dict whose keys are not all text
    BIG_INT = 10
    OBJECT = 11  # path of the class, its state
    REFERENCE = 12  # path of a class or a function
    ENUM = 13  # path of the class, name of the member
    BYTEARRAY = 14
    COMPLEX = 15
    UUID = 16
    PATH = 17
    PATTERN = 18
    COLLECTION = 19  # a dict or list of another class of `collections`: its name, its contents
    OPAQUE = 20  # repr of what could not cross
    EXTRA = 32  # from here on: other modules, see `Codec.register`


Encode = Callable[[Any], Any]
_PLAIN: Final = frozenset({str, bytes, bool, float, type(None)})
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_OPAQUE_CHARS: Final = 500  # of the repr of a value that cannot cross
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement
STAT_VALUE_MARK: Final = b"="  # before a stat that is no number
_pack: Final = msgspec.msgpack.Encoder().encode
_COLLECTIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "OrderedDict": OrderedDict,
    "deque": deque,
}


def resolve_path(path: str) -> Any:
    """The object at `module:qualified.name`, importing its module if need be.

    Raises:
        CannotCrossError: there is no such object here.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise CannotCrossError(f"{path} is not to be found in this process: {exc}") from exc
    return found


def path_of(target: Any) -> str:
    """Where `resolve_path` finds a class or a function again.

    Raises:
        CannotCrossError: it is defined inside a function, or was replaced.
    """
    name = getattr(target, "__qualname__", "")
    path = f"{getattr(target, '__module__', '')}:{name}"
    if not name or "<" in name:
        raise CannotCrossError(f"{target!r} is defined inside a function")
    try:
        found = resolve_path(path)
    except CannotCrossError as exc:
        raise CannotCrossError(f"{target!r} has no name in its module") from exc
    if found is not target:
        raise CannotCrossError(f"{path} means another object now")
    return path


class Codec:
    """Values to bytes and back; immutable after set-up, so any thread may use it.

    Args:
        resolve: finds classes and functions by path when decoding.
        opaque: whether what cannot cross becomes its repr instead of an error.
    """

    def __init__(self, resolve: Resolve = resolve_path, *, opaque: bool = False) -> None:
        self._resolve = resolve
        self._opaque = opaque
        self._extra: list[tuple[type, int, Encode]] = []
        self._extra_decode: dict[int, Callable[[Any], Any]] = {}
        self._decoder = msgspec.msgpack.Decoder(ext_hook=self._ext_hook)

    def register(self, kind: type, code: int, encode: Encode, decode: Callable[[Any], Any]) -> None:
        """Let instances of `kind` cross as what `encode` makes of them."""
        if code < Tag.EXTRA:
            raise ValueError(f"tag {code} is one of this module's own")
        self._extra.append((kind, code, encode))
        self._extra_decode[code] = decode

    def encode(self, value: Any) -> bytes:
        """The value as bytes.

        Raises:
            CannotCrossError: what cannot cross, and where in the value it is.
        """
        try:
            return _pack(self.tagged(value))
        except RecursionError as exc:
            raise CannotCrossError("the value contains itself") from exc

    def decode(self, data: bytes | memoryview) -> Any:
        """The value that `encode` got."""
        return self._decoder.decode(data)

    def tagged(self, value: Any) -> Any:
        """The value with every type that msgpack lacks replaced by an extension."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else _ext(Tag.BIG_INT, str(value))
        if kind is list:
            return [self.tagged(each) for each in value]
        if kind is dict:
            if all(type(key) is str for key in value):
                return {key: self.tagged(each) for key, each in value.items()}
            return _ext(Tag.PAIRS, self._pairs(value))
        if kind is tuple:
            return _ext(Tag.TUPLE, [self.tagged(each) for each in value])
        return self._tagged_other(value, kind)

    def _pairs(self, value: dict[Any, Any]) -> list[list[Any]]:
        return [[self.tagged(key), self.tagged(each)] for key, each in value.items()]

    def _tagged_other(self, value: Any, kind: type) -> Any:
        for extra, code, encode in self._extra:
            if isinstance(value, extra):
                return _ext(code, self.tagged(encode(value)))
        simple = _SIMPLE.get(kind)
        if simple is not None:
            tag, to_plain = simple
            return _ext(tag, to_plain(value))
        if kind in {set, frozenset}:
            packed = sorted(_pack(self.tagged(each)) for each in value)
            tag = Tag.SET if kind is set else Tag.FROZENSET
            return _ext(tag, [msgspec.Raw(each) for each in packed])
        if kind is OrderedDict:
            return _ext(Tag.COLLECTION, ["OrderedDict", self._pairs(value)])
        if kind is deque:
            return _ext(Tag.COLLECTION, ["deque", [self.tagged(each) for each in value]])
        try:
            return self._tagged_object(value, kind)
        except CannotCrossError:
            if self._opaque:
                return _ext(Tag.OPAQUE, repr(value)[:_OPAQUE_CHARS])
            raise

    def _tagged_object(self, value: Any, kind: type) -> Any:
        if isinstance(value, enum.Enum):
            return _ext(Tag.ENUM, [path_of(kind), value.name])
        if isinstance(value, pathlib.PurePath):
            return _ext(Tag.PATH, str(value))
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return _ext(Tag.REFERENCE, path_of(value))
        return _ext(Tag.OBJECT, [path_of(kind), self.tagged(_state_of(value, kind))])

    def _ext_hook(self, code: int, data: memoryview) -> Any:
        value = self._decoder.decode(data)
        known = _DECODE.get(code)
        if known is not None:
            return known(value)
        if code == Tag.OBJECT:
            return self._build(value[0], value[1])
        if code == Tag.REFERENCE:
            return self._resolve(value)
        if code == Tag.ENUM:
            return self._resolve(value[0])[value[1]]
        if code in self._extra_decode:
            return self._extra_decode[code](value)
        raise CannotCrossError(f"a packet holds an extension {code} that this program lacks")

    def _build(self, path: str, state: tuple[Any, ...]) -> Any:
        kind = self._resolve(path)
        how, content = state
        if how == "mapping":
            made = dict.__new__(kind) if issubclass(kind, dict) else kind.__new__(kind)
            if isinstance(made, defaultdict):
                made = defaultdict(content[0])
                content = content[1]
            made.update(content)
            return made
        if how == "sequence":
            return kind(*content) if hasattr(kind, "_fields") else kind(content)
        if how == "text":
            return kind(content)
        made = kind.__new__(kind)
        for name, each in content.items():
            object.__setattr__(made, name, each)
        return made


class PlainCodec(Codec):
    """Decodes packets of another process without finding or building any class of this one.

    For senders: what a worker sends can run no code where it is read. Objects become dictionaries
    of their state, enum members their name, classes and functions their path.
    """

    def __init__(self) -> None:
        super().__init__(resolve=_identity)

    def _ext_hook(self, code: int, data: memoryview) -> Any:
        value = self._decoder.decode(data)
        if code in _DECODE:
            return _DECODE[code](value)
        if code == Tag.ENUM:
            return value[1]
        # An object is [path, (how, state)], one of another module most often [path, state].
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if code == Tag.OBJECT and isinstance(value, tuple) and len(value) == 2:
            value = value[1]
        return value


def read_stat(data: bytes) -> Any:
    """A stat as a crawl keeps it: a decimal number, or `STAT_VALUE_MARK` and msgpack."""
    if data.startswith(STAT_VALUE_MARK):
        return PlainCodec().decode(data[len(STAT_VALUE_MARK) :])
    text = data.decode()
    try:
        return int(text)
    except ValueError:
        return float(text)


def _state_of(value: Any, kind: type) -> tuple[str, Any]:
    """How an object is built again, and from what.

    Raises:
        CannotCrossError: its class keeps its state in a way of its own.
    """
    if isinstance(value, defaultdict):
        return "mapping", (value.default_factory, dict(value))
    if isinstance(value, dict) and getattr(kind, "__init__", None) is dict.__init__:
        return "mapping", dict(value)
    if isinstance(value, tuple):
        return "sequence", list(value)
    if isinstance(value, list) and not value.__dict__:
        return "sequence", list(value)
    if isinstance(value, str | int | float | bytes):
        base: Any = next(base for base in (str, int, float, bytes) if isinstance(value, base))
        return "text", base(value)
    if dataclasses.is_dataclass(value):
        return "fields", {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    attrs = getattr(kind, "__attrs_attrs__", None)
    if attrs is not None:
        return "fields", {a.name: getattr(value, a.name) for a in attrs}
    return "fields", _plain_state(value, kind)


def _plain_state(value: Any, kind: type) -> dict[str, Any]:
    own_way = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs_ex__")
    for name in own_way:
        if getattr(kind, name, None) is not getattr(object, name, None):
            raise CannotCrossError(f"{kind.__qualname__} keeps its state in a way of its own")
    if getattr(kind, "__slots__", None) or not hasattr(value, "__dict__"):
        raise CannotCrossError(f"{kind.__qualname__} has no plain state")
    package = kind.__module__.partition(".")[0]
    if package in sys.stdlib_module_names or not kind.__flags__ & _HEAP_TYPE:
        raise CannotCrossError(f"{kind.__qualname__} is a type of the interpreter")
    return dict(value.__dict__)


def _ext(code: int, plain: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(int(code), _pack(plain))  # exactly an int is asked for


def _seconds(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _pattern(value: Any) -> list[Any]:
    return [value.pattern, value.flags]


def _collection(value: list[Any]) -> Any:
    return _COLLECTIONS[value[0]](value[1])


def _identity(value: Any) -> Any:
    return value


_SIMPLE: Final[dict[type, tuple[Tag, Callable[[Any], Any]]]] = {
    datetime.datetime: (Tag.DATETIME, datetime.datetime.isoformat),
    datetime.date: (Tag.DATE, datetime.date.isoformat),
    datetime.time: (Tag.TIME, datetime.time.isoformat),
    datetime.timedelta: (Tag.TIMEDELTA, _seconds),
    decimal.Decimal: (Tag.DECIMAL, str),
    bytearray: (Tag.BYTEARRAY, bytes),
    complex: (Tag.COMPLEX, lambda value: [value.real, value.imag]),
    uuid.UUID: (Tag.UUID, lambda value: value.bytes),
    re.Pattern: (Tag.PATTERN, _pattern),
}

_DECODE: Final[dict[int, Callable[[Any], Any]]] = {
    Tag.TUPLE: tuple,
    Tag.SET: set,
    Tag.FROZENSET: frozenset,
    Tag.DATETIME: datetime.datetime.fromisoformat,
    Tag.DATE: datetime.date.fromisoformat,
    Tag.TIME: datetime.time.fromisoformat,
    Tag.TIMEDELTA: lambda value: datetime.timedelta(*value),
    Tag.DECIMAL: decimal.Decimal,
    Tag.PAIRS: dict,
    Tag.BIG_INT: int,
    Tag.BYTEARRAY: bytearray,
    Tag.COMPLEX: lambda value: complex(*value),
    Tag.UUID: lambda value: uuid.UUID(bytes=value),
    Tag.PATH: pathlib.Path,
    Tag.PATTERN: lambda value: re.compile(*value),
    Tag.COLLECTION: _collection,
    Tag.OPAQUE: _identity,
}
