"""Owns how requests, items and failures of one spider cross a process border.

Runs in children. A request is a msgpack map of its fields that are not default, with callbacks as
names of the spider's methods; what else may cross is the matter of `values.py`.
"""

import functools
import inspect
import logging
import types
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from itemadapter import ItemAdapter, is_item
from scrapy import Item, Request, Spider
from scrapy.http import Headers, Response
from scrapy.http.request import NO_CALLBACK

from vscrapy_magic.store.values import CannotCrossError, Codec, Tag, path_of, resolve_path

logger = logging.getLogger(__name__)

_ITEM: Final = Tag.EXTRA
_HEADERS: Final = Tag.EXTRA + 1
_RESPONSE: Final = Tag.EXTRA + 2
_REQUEST: Final = Tag.EXTRA + 3
_METHOD: Final = Tag.EXTRA + 4
_PARTIAL: Final = Tag.EXTRA + 5

_CLASS: Final = "_class"
_CALLABLES: Final = frozenset({"callback", "errback"})
_DEFAULTS: Final[dict[str, Any]] = {
    "method": "GET",
    "body": b"",
    "encoding": "utf-8",
    "priority": 0,
    "dont_filter": False,
    "callback": None,
    "errback": None,
    "dumps_kwargs": {},
    "headers": {},
    "cookies": {},
    "meta": {},
    "cb_kwargs": {},
    "flags": [],
}
_MISSING: Final = object()
_NO_CALLBACK_NAME: Final = path_of(NO_CALLBACK)


class SpiderCodec:
    """Requests and items of one spider to bytes and back; used by the event loop only."""

    def __init__(self, spider: Spider) -> None:
        self._spider = spider
        self._names: dict[Any, str] = {}
        self._classes: dict[type[Request], str] = {}
        self._values = self._with_types(Codec())
        self._items = self._with_types(Codec(opaque=True))
        self._warned: set[str] = set()
        # Is told of an item that went as text in part, once for each class.
        self.on_text: Callable[[Any, Exception], None] | None = None

    def _with_types(self, codec: Codec) -> Codec:
        codec.register(Item, _ITEM, _item_state, _item_from)
        codec.register(Headers, _HEADERS, dict, Headers)
        codec.register(Response, _RESPONSE, _response_state, _response_from)
        codec.register(Request, _REQUEST, self.encode_request, self.decode_request)
        codec.register(types.MethodType, _METHOD, self._method_name, self._method)
        codec.register(functools.partial, _PARTIAL, _partial_state, _partial_from)
        return codec

    def encode_request(self, request: Request) -> bytes:
        """The request as bytes, without fields that are default.

        Raises:
            CannotCrossError: the field and the value that only this process can hold.
        """
        fields: dict[str, Any] = {}
        kind = type(request)
        if kind is not Request:
            fields[_CLASS] = self._class_path(kind)
        for name in request.attributes:
            value = getattr(request, name)
            if value == _DEFAULTS.get(name, _MISSING):
                continue
            try:
                if name in _CALLABLES:
                    fields[name] = self._callable(value)
                elif name == "headers":
                    fields[name] = {key: list(values) for key, values in dict.items(value)}
                else:
                    fields[name] = self._values.tagged(value)
            except RecursionError as exc:
                raise CannotCrossError(f"its {name} contains itself") from exc
            except Exception as exc:
                # Objects of the user's own may raise anything when they are looked at; then the
                # request must not get lost, but stay where it is.
                raise CannotCrossError(f"its {name} cannot leave this process: {exc}") from exc
        return msgspec.msgpack.encode(fields)

    def decode_request(self, payload: bytes) -> Request:
        """The request that `encode_request` got."""
        fields = self._values.decode(payload)
        for name in _CALLABLES & fields.keys():
            fields[name] = self._callable_from(fields[name])
        kind = Request
        if _CLASS in fields:
            kind = resolve_path(fields.pop(_CLASS))
        url = fields.pop("url")
        made: Request = kind(url, **fields)
        return made

    def encode_item(self, item: Any) -> bytes:
        """The item as one record; values that cannot cross become text, with one WARNING each."""
        record, exc = self._item_record(item)
        if exc is not None:
            self._warn_of_item(item, exc)
        return record

    def describe_item(self, item: Any) -> bytes:
        """The same without a word: for an item that is only looked at."""
        return self._item_record(item)[0]

    def _item_record(self, item: Any) -> tuple[bytes, Exception | None]:
        kind, failed = type(item), None
        if kind is dict:
            name, content = "dict", item
        elif is_item(item):
            name, content = f"{kind.__module__}:{kind.__qualname__}", dict(ItemAdapter(item))
        else:
            name, content = "object", item
        try:
            data = self._values.tagged(content)
        except Exception as exc:  # noqa: BLE001 - as above; the item is to arrive
            failed = exc
            data = self._items.tagged(content)
        return msgspec.msgpack.encode({"type": name, "data": data}), failed

    def decode_value(self, data: bytes) -> Any:
        """A value of the crawl's settings or arguments."""
        return self._values.decode(data)

    def _warn_of_item(self, item: Any, exc: Exception) -> None:
        name = type(item).__qualname__
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("Part of an item (%s) is sent as text: %s", name, exc)
            if self.on_text is not None:
                self.on_text(item, exc)

    def _class_path(self, kind: type[Request]) -> str:
        path = self._classes.get(kind)
        if path is None:
            path = self._classes[kind] = path_of(kind)
        return path

    def _callable(self, value: Any) -> Any:
        """A method of the spider as its name, anything else as a tagged value."""
        if isinstance(value, types.MethodType) and value.__self__ is self._spider:
            return self._method_name(value)
        if value is NO_CALLBACK:
            return msgspec.msgpack.Ext(
                int(Tag.REFERENCE), msgspec.msgpack.encode(_NO_CALLBACK_NAME)
            )
        return self._values.tagged(value)

    def _callable_from(self, value: Any) -> Any:
        return self._method(value) if isinstance(value, str) else value

    def _method_name(self, method: Any) -> str:
        """The attribute of the spider under which a method of it is found.

        A name of its class need not be one: `__private` methods have another one there.
        """
        if method.__self__ is not self._spider:
            raise CannotCrossError(f"{method!r} is no method of the spider")
        function = method.__func__
        name = self._names.get(function)
        if name is None:
            name = self._names[function] = self._find_name(method)
        return name

    def _find_name(self, method: Any) -> str:
        if getattr(self._spider, method.__func__.__name__, None) == method:
            return str(method.__func__.__name__)
        for name, found in inspect.getmembers(self._spider, inspect.ismethod):
            if found == method:
                return name
        raise CannotCrossError(f"{method!r} is no attribute of the spider")

    def _method(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._spider, name)
        return found


def item_packet(records: Sequence[bytes]) -> bytes:
    """Records of `encode_item`, or of failures, as one packet."""
    return msgspec.msgpack.encode([msgspec.Raw(record) for record in records])


def _item_state(item: Item) -> list[Any]:
    return [path_of(type(item)), dict(item)]


def _item_from(state: list[Any]) -> Item:
    kind: type[Item] = resolve_path(state[0])
    return kind(state[1])


def _response_state(response: Response) -> list[Any]:
    fields: dict[str, Any] = {
        "url": response.url,
        "status": response.status,
        "headers": response.headers,
        "body": response.body,
        "flags": response.flags,
        "protocol": response.protocol,
    }
    if response.request is not None:
        fields["request"] = response.request
    encoding = getattr(response, "_declared_encoding", None)
    if callable(encoding) and encoding():
        fields["encoding"] = encoding()
    return [path_of(type(response)), fields]


def _response_from(state: list[Any]) -> Response:
    kind: type[Response] = resolve_path(state[0])
    return kind(**state[1])


def _partial_state(value: functools.partial[Any]) -> list[Any]:
    return [value.func, list(value.args), value.keywords]


def _partial_from(state: list[Any]) -> functools.partial[Any]:
    return functools.partial(state[0], *state[1], **state[2])
