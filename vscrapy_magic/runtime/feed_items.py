"""Owns how items become objects of their class again, for exporters.

Runs in the process that writes feeds. Exporters ask a class for its fields and serializers, so an
item is made one of its class when that is found in the user's own code as it is here. No module is
imported, and no method called, because a worker names it: what is not found stays a dictionary.
"""

import enum
import inspect
from types import ModuleType
from typing import Any, Final

from itemadapter import ItemAdapter
from scrapy import Item

from vscrapy_magic.runtime.source import users_modules
from vscrapy_magic.store.values import CannotCrossError, PlainCodec, Tag

_PLAIN_ITEM: Final = "dict"


class Classes:
    """Classes of the user's code, by the path that a worker gives.

    Args:
        entry: the module made of the spider's file; None when there is none.
    """

    def __init__(self, entry: ModuleType | None) -> None:
        self._modules = users_modules()
        if entry is not None:
            # What a child runs as its `__main__`.
            self._modules["__main__"] = entry

    def find(self, path: str) -> type | None:
        """The class; None when the user's code, as imported here, has none there."""
        module_name, _, name = path.partition(":")
        found: Any = self._modules.get(module_name)
        for part in name.split("."):
            found = getattr(found, part, None)
        return found if inspect.isclass(found) and found.__qualname__ == name else None


class FeedCodec(PlainCodec):
    """Plain data, with the user's own classes where they are known."""

    def __init__(self, classes: Classes) -> None:
        super().__init__()
        self._classes = classes
        self._resolve = self._known

    def _known(self, path: str) -> type:
        kind = self._classes.find(path)
        if kind is None:
            raise CannotCrossError(f"{path} is not to be found in this process")
        return kind

    def _ext_hook(self, code: int, data: memoryview) -> Any:
        if code in {Tag.OBJECT, Tag.ENUM}:
            path, content = self._decoder.decode(data)
            kind = self._classes.find(path)
            if kind is not None and code == Tag.OBJECT:
                return self._build(path, content)
            if kind is not None and issubclass(kind, enum.Enum):
                return kind[content]
        return super()._ext_hook(code, data)

    def item(self, record: dict[str, Any]) -> Any:
        """The item that a child scraped."""
        name, data = record["type"], record["data"]
        kind = None if name == _PLAIN_ITEM else self._classes.find(name)
        if kind is None or not ItemAdapter.is_item_class(kind):
            return data
        if issubclass(kind, Item):
            return kind(data)
        if hasattr(kind, "model_construct"):
            return kind.model_construct(**data)
        made = kind.__new__(kind)
        for field, value in data.items():
            object.__setattr__(made, field, value)
        return made
