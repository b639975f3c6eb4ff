"""Owns what a sender asks its helper processes: to read a spider's source, and to write feeds.

Used by senders and by `runtime/inspect.py` and `runtime/feeds.py`, which are started by command
line on the sender's machine. Orders go through standard input: settings may hold passwords, and a
command line is seen by everybody on the machine.
"""

from typing import Any, Final

import msgspec

GROWN: Final = b"+"  # to a feed writer: the log has grown
END: Final = b"."  # and: it grows no more


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


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a crawl's source was read; kept in the spool, to read it again as it is now.

    Attributes:
        folder: the working folder then.
    """

    source: Source
    folder: str


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
    """How the feeds of a crawl are written; kept in the spool for as long as the crawl is.

    Attributes:
        source: where the feeds, their settings and the classes of the items are found.
        plain: there is no source: only `source.output` and `source.overwrite` count.
        cwd: the folder that relative addresses are meant from.
        project: settings module of a copy of the source; empty: as the working folder has it.
    """

    source: Source
    plain: bool = False
    cwd: str = ""
    project: str = ""


class FeedStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a feed writer is told at its start; one line of JSON.

    After it each byte means that the log has grown, `END` that nothing more comes. The input ends
    without it when the sender is gone: then what is in the log is written.

    Attributes:
        log: the frames of outputs.
        journal: what is noted of the feeds.
        lock: held while feeds are written.
        pid: of the sender; when it is gone, the feeds are finished as they are.
        alive_ns: when the process before this one was last known to write; files of this machine
            that were changed later were changed by somebody else.
    """

    order: FeedOrder
    log: str
    journal: str
    lock: str
    pid: int
    alive_ns: int = 0
