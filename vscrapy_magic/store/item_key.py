"""Owns the key of an item: the same in a pipeline on a worker and where its dictionary came back.

Used by spider code in children and by senders. Delivery is exactly once; what a pipeline does
elsewhere is done again when a worker dies in the middle of it: a database that has this key as its
unique key takes such an item once.
"""

import hashlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from vscrapy_magic.store.values import Codec, PlainCodec, Tag

_KEY_BYTES: Final = 8


def item_key(item: Any) -> str:
    """A stable key of an item's content, 16 hex digits; equal items have equal keys.

    The item may be a dictionary, a Scrapy item, a dataclass or an attrs object; the order of its
    fields does not matter, its class neither: the dictionary that comes back of it has its key.
    Values that only one process can hold count by their text, which may differ between runs.
    """
    plain = PlainCodec().decode(_codec().encode(_fields(item)))
    packed = Codec(opaque=True).encode(_ordered(plain))
    return hashlib.blake2b(packed, digest_size=_KEY_BYTES).hexdigest()


def _codec() -> Codec:
    """As items cross: Scrapy's own items inside of others as their fields."""
    codec = Codec(opaque=True)
    scrapy_item = sys.modules.get("scrapy.item")
    if scrapy_item is not None:
        codec.register(scrapy_item.Item, Tag.EXTRA, lambda item: ["", dict(item)], dict)
    return codec


def _fields(item: Any) -> Any:
    from itemadapter import ItemAdapter, is_item

    return dict(ItemAdapter(item)) if is_item(item) else item


def _ordered(value: Any) -> Any:
    """The value with dictionaries in the order of their keys."""
    if isinstance(value, Mapping):
        pack = Codec(opaque=True).encode
        return {key: _ordered(value[key]) for key in sorted(value, key=pack)}
    if isinstance(value, list):
        return [_ordered(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_ordered(each) for each in value)
    return value
