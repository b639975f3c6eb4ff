"""One example of a documentation: where it is found, and the little that it needs to be run."""

import re
import textwrap
from dataclasses import dataclass, field

from tests.others.documents import Documents

Pairs = tuple[tuple[str, str], ...]
ADDRESS = "%pages%"  # of the site, in heads and frames


@dataclass(frozen=True)
class Example:
    """One of them.

    Attributes:
        document: of Scrapy's documentation.
        pattern: found in one block of that document alone.
        kind: the spider's class.
        pairs: patterns, and what is put in their place; `{demo}` and `{pages}` are addresses.
        oldest: of the documentation of the oldest release, not of the installed one.
        wrapped: a class that the functions of the block are methods of.
        head: what stands before the block: imports that the reader is left to think of.
        frame: what stands behind it: a spider that uses it; with `ADDRESS`.
        as_file: also run by `vscrapy runspider`.
        in_cells: whether it can be run from cells: not when its feed is the point.
        feed: the file that the spider itself says its items go to; empty for one of ours.
    """

    name: str
    document: str
    pattern: str
    kind: str
    pairs: Pairs = ()
    args: dict[str, str] = field(default_factory=dict)
    oldest: bool = False
    wrapped: str = ""
    head: str = ""
    frame: str = ""
    as_file: bool = False
    in_cells: bool = True
    feed: str = ""

    def made(self, documents: Documents, sites: dict[str, str]) -> "Made":
        """Ready to be run."""
        block = documents.example(self.document, self.pattern)
        if self.wrapped:
            imports, methods = _split(block)
            block = f"{imports}\n{self.wrapped}\n{textwrap.indent(methods, '    ')}"
        head = f"{self.head}\n\n\n" if self.head else ""
        text = f"{head}{replaced(block, self.pairs, sites)}\n{self.frame}"
        text = replaced(text, ((ADDRESS, "{pages}"),), sites)
        return Made(self.name, self.kind, text, self.args, self.feed, in_cells=self.in_cells)


def _split(block: str) -> tuple[str, str]:
    """Imports of a block, and its functions."""
    at = re.search(r"^(async )?def ", block, re.MULTILINE)
    assert at is not None
    return block[: at.start()], block[at.start() :]


def replaced(text: str, pairs: Pairs, sites: dict[str, str]) -> str:
    """A text with its hosts replaced."""
    for pattern, words in pairs:
        text = re.sub(pattern, words.format(**sites), text)
    return text


@dataclass(frozen=True)
class Made:
    """A spider, ready to be run: its class, its source, its arguments."""

    name: str
    kind: str
    text: str
    args: dict[str, str] = field(default_factory=dict)
    feed: str = ""
    in_cells: bool = True

    @property
    def stem(self) -> str:
        """The name of its file."""
        return re.sub(r"\W", "_", self.name)

    @property
    def words(self) -> list[str]:
        """Its arguments on a command line."""
        return [word for name, value in self.args.items() for word in ("-a", f"{name}={value}")]
