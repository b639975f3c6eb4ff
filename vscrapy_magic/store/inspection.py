"""Owns what a sender asks its helper processes: to read a spider's source, and to write feeds.

Used by senders and by `runtime/inspect.py` and `runtime/feeds.py`, which are started by command
line on the sender's machine. Orders go through standard input: settings may hold passwords, and a
command line is seen by everybody on the machine.
"""

from struct import Struct
from typing import Any, Final

import msgspec

FRAME_HEAD: Final = Struct(">I")  # bytes of the frame that follows


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a spider is read from, on the sender's machine.

    Attributes:
        entry: path of the spider's file; empty for a spider of the project around the working
            folder.
        spider: its name; empty for the last one that the file defines.
        settings: those given with the order, as `-s` of Scrapy's command line.
        args: arguments of the spider.
        output: feeds appended to (`-o`).
        overwrite: feeds that begin anew (`-O`).
        folder: looked in first when something is imported; empty for none.
    """

    entry: str = ""
    spider: str = ""
    settings: dict[str, Any] = {}
    args: dict[str, str] = {}
    output: tuple[str, ...] = ()
    overwrite: tuple[str, ...] = ()
    folder: str = ""


class Inspection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a spider's source says, as plain data.

    Attributes:
        error: why it cannot be run, in one line; empty when it can.
        names: spiders that are there.
        spider: name of the one that was asked for.
        file: where its class is defined.
        classes: names of its class and of those that it inherits from.
        project: dotted name of the project's settings module; empty outside of projects.
        root: folder of the project's `scrapy.cfg`; empty for none.
        modules: (folder that it is imported from, top-level name) of the user's own modules.
        settings: those in force for this spider, plain.
        known: names of Scrapy's own settings.
        feeds: addresses of the feeds in force.
        notes: what its user should know before it runs.
    """

    error: str = ""
    names: tuple[str, ...] = ()
    spider: str = ""
    file: str = ""
    classes: tuple[str, ...] = ()
    project: str = ""
    root: str = ""
    modules: tuple[tuple[str, str], ...] = ()
    settings: dict[str, Any] = {}
    known: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class FeedOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a feed writer is told before the items come.

    Attributes:
        source: where the feeds, their settings and the classes of the items are found.
        quiet: whether only problems are reported.
    """

    source: Source
    quiet: bool = False
