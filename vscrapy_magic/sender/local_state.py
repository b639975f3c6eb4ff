"""Owns what is known of add-ons that keep what they have seen in a file of the machine they run on.

Runs in the sender's process. Such a file is one process's: with several workers each would have
its own, so the crawl runs on one. Unless it is told of a folder, the add-on keeps its file in the
folder of the child, which goes with the child: the next crawl would begin as if it were the first.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

import msgspec

from vscrapy_magic.sender.bundle import Shipped

_COMPONENTS: Final = (
    *("ADDONS", "SPIDER_MIDDLEWARES", "DOWNLOADER_MIDDLEWARES", "EXTENSIONS", "ITEM_PIPELINES"),
)


class _Keeper(msgspec.Struct, frozen=True):
    """Settings of one add-on: its folder, and what turns it on."""

    folder: str
    enabled: str


_KEEPERS: Final = {
    "scrapy_deltafetch": _Keeper("DELTAFETCH_DIR", "DELTAFETCH_ENABLED"),
}
_GONE: Final = (
    "{package} keeps what it has seen in a folder that goes with the worker's process: the next "
    "crawl begins without it; {folder}=/an/absolute/folder keeps it on that worker's machine"
)


def pinned(shipped: Shipped, settings: Mapping[str, Any]) -> Shipped:
    """The same, on one worker when an add-on keeps state in a file; with a note when that is lost.

    Args:
        settings: those in force, plain.
    """
    found = set(_packages(settings))
    for package, keeper in _KEEPERS.items():
        if package not in found or not _is_on(settings.get(keeper.enabled)):
            continue
        why = shipped.pinned or f"{package} keeps what it has seen in a file"
        note = _GONE.format(package=package, folder=keeper.folder)
        lasting = PurePath(str(settings.get(keeper.folder, ""))).is_absolute()
        notes = shipped.notes if lasting else (*shipped.notes, note)
        shipped = msgspec.structs.replace(shipped, pinned=why, notes=notes)
    return shipped


def _packages(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in _COMPONENTS:
        components = settings.get(name)
        for path, order in components.items() if isinstance(components, Mapping) else ():
            if order is not None:
                yield (path.__module__ if isinstance(path, type) else str(path)).partition(".")[0]


def _is_on(value: Any) -> bool:
    return str(value) in {"1", "True", "true"}
