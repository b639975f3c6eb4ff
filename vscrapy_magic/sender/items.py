"""Owns how items, failures and pages of a crawl are read: sequences over its spool, lazy ones.

Runs in the sender's process; any thread. A million items do not live in the kernel.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, TypeVar, overload

from vscrapy_magic.sender.failures import Failure
from vscrapy_magic.sender.pages import Page
from vscrapy_magic.sender.spool import Spool, failures_in
from vscrapy_magic.store.failures import FailureGroup
from vscrapy_magic.store.outputs import Output
from vscrapy_magic.store.values import PlainCodec

SHOWN: Final = 5  # entries in a repr
_NO_ENTRY: Final = (-1, -1)

T = TypeVar("T")


class _Lazy(Sequence[T], Generic[T]):
    """Records of a spool, by number; one entry of it is kept in memory."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._cached: tuple[tuple[int, int], Sequence[T]] = (_NO_ENTRY, ())

    def _count(self) -> int:
        raise NotImplementedError

    def _entry_of(self, place: int) -> tuple[int, int]:
        raise NotImplementedError

    def _read(self, output: Output) -> Sequence[T]:
        raise NotImplementedError

    def __len__(self) -> int:
        if not self._spool.collects:
            self._spool.refresh()
        return self._count()

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        count = len(self)
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(count))]
        place = index + count if index < 0 else index
        if not 0 <= place < count:
            raise IndexError(f"there is no number {index} among {count}")
        return self._at(place)

    def _at(self, place: int) -> T:
        number, within = self._entry_of(place)
        cached = self._cached  # another thread may replace it
        entry = self._spool.cuts, number
        if cached[0] != entry:
            cached = self._cached = entry, self._read(self._spool.output(number))
        return cached[1][within]

    def __iter__(self) -> Iterator[T]:
        return (self._at(place) for place in range(len(self)))

    def __repr__(self) -> str:
        count = len(self)
        shown = ",\n ".join(map(repr, self[:SHOWN]))
        more = f",\n ... {count - SHOWN} more" if count > SHOWN else ""
        return f"[{shown}{more}]"


class Items(_Lazy[dict[str, Any]]):
    """The items of a crawl as dictionaries; it grows while the crawl runs.

    What a worker sent is data: an item of a class of yours is the dictionary of its fields.
    """

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool)
        self._codec = PlainCodec()

    def code_version(self, place: int) -> int:
        """Number of the code that brought an item, by its place from 0."""
        return self._spool.output(self._spool.entry_of_item(place)[0]).code_version

    def _count(self) -> int:
        return self._spool.item_count

    def _entry_of(self, place: int) -> tuple[int, int]:
        return self._spool.entry_of_item(place)

    def _read(self, output: Output) -> list[dict[str, Any]]:
        return [record["data"] for record in self._codec.decode(output.items)]


class Pages(_Lazy[Page]):
    """The recorded pages of a crawl, in the order of their commits; it grows while that runs."""

    def _count(self) -> int:
        self._spool.pages.refresh()
        return len(self._spool.pages)

    def _at(self, place: int) -> Page:
        return Page(self._spool.pages[place])


class FailureList(_Lazy[Failure]):
    """The failures of a crawl, oldest first; it grows while the crawl runs."""

    def _count(self) -> int:
        return self._spool.failure_count

    def _entry_of(self, place: int) -> tuple[int, int]:
        return self._spool.entry_of_failure(place)

    def _read(self, output: Output) -> list[Failure]:
        return [Failure(record) for record in failures_in(output)]

    @property
    def left_out(self) -> int:
        """How many more there were of which nothing but their number is kept."""
        return self._spool.left_out

    def groups(self) -> list[FailureGroup]:
        """Failures by what they are and where, the most frequent first."""
        if not self._spool.collects:
            self._spool.refresh()
        return self._spool.groups()
