"""Owns the options of a crawl: Scrapy's, with their letters and meaning, and ours.

Runs in the sender's process: one parser for `vscrapy crawl`, `vscrapy runspider`, `%%vcrawl` and
`%vcrawl`. A mistake is a `ConfigError` of one line, never the end of the process, because the
process may be a notebook's kernel.
"""

import argparse
import difflib
import functools
import logging
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec

from vscrapy_magic.config import check_url, redact
from vscrapy_magic.errors import ConfigError

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MASK: Final = "***"
_HELP_WORDS: Final = frozenset({"-h", "--help"})
_STDOUT_FEED: Final = "-:"  # `-o -:json`: a value, although it begins like an option
_IN_ARGPARSE: Final = re.compile(r"argument ([^:]+): (.*)")
_NEEDED: Final = re.compile(r"the following arguments are required: (.*)")
_CLOSE: Final = 0.75  # of difflib, for settings: a project has names of its own

# Settings that are Scrapy's own parts of one process: default, and what does it here instead.
_NO_EFFECT: Final = {
    "JOBDIR": ("", "the crawl's queue is in Redis, and is not kept for a later run"),
    "SCHEDULER": ("scrapy.core.scheduler.Scheduler", "all workers share one queue, in Redis"),
    "STATS_CLASS": (
        "scrapy.statscollectors.MemoryStatsCollector",
        "all workers share one set of stats, in Redis",
    ),
}
_EXAMPLES: Final = {
    "crawl": "example: {prog} quotes -a tag=humor -O quotes.jsonl --workers 4",
    "runspider": "example: {prog} quotes.py -a tag=humor -O quotes.jsonl --workers 4",
    "cell": "example: {prog} quotes -a tag=humor -s DOWNLOAD_DELAY=0.5 --workers 4 --as quotes",
}


class CrawlOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed after `crawl` and its relatives.

    Attributes:
        target: a spider's name or file.
        help: what to show instead of crawling; empty for none.
        settings: `-s`, as text, without what the other options mean for them.
        output: `-o`.
        overwrite: `-O`.
        workers: at most so many; None: not said.
        background: `--bg`.
        variable: `--as`.
        files: data files to send along.
        env: names of environment variables to send along; never shown with their values.
        redis: an address; may hold a password, so it is never shown.
        ttl_s: silence of this sender after which its crawl is cancelled; None: not said.
    """

    target: str = ""
    help: str = ""
    args: dict[str, str] = {}
    settings: dict[str, str] = {}
    output: tuple[str, ...] = ()
    overwrite: tuple[str, ...] = ()
    logfile: str = ""
    loglevel: str = ""
    nolog: bool = False
    quiet: bool = False
    profile: str = ""
    pidfile: str = ""
    pdb: bool = False
    no_break: bool = False
    workers: int | None = None
    background: bool = False
    detach: bool = False
    variable: str = ""
    keep_open: bool = False
    record: bool = False
    files: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    redis: str = ""
    ttl_s: float | None = None

    def cmdline_settings(self) -> dict[str, str]:
        """The settings that all options together mean, as Scrapy's command line has them."""
        settings = dict(self.settings)
        if self.loglevel or self.logfile:
            settings["LOG_ENABLED"] = "True"
        if self.quiet:
            settings["LOG_LEVEL"] = "WARNING"
        if self.loglevel:
            settings["LOG_LEVEL"] = self.loglevel
        if self.nolog:
            settings["LOG_ENABLED"] = "False"
        return settings

    def environment(self) -> dict[str, str]:
        """The variables named by `--env`, with their values here.

        Raises:
            ConfigError: one is not set.
        """
        missing = [name for name in self.env if name not in os.environ]
        if missing:
            near = _near(missing[0], os.environ)
            raise ConfigError(f"--env {missing[0]}: no such environment variable here{near}")
        return {name: os.environ[name] for name in self.env}

    def notes(self) -> list[str]:
        """What some options cannot do on workers, in a sentence each."""
        said = []
        if self.profile:
            said.append(
                f"--profile: the spider runs on workers, so {self.profile} is not written; "
                "`scrapy crawl --profile` measures it on this machine"
            )
        return said

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["redis"] = redact(self.redis)
        said = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value)
        return f"CrawlOptions({said})"


class OptionParser(argparse.ArgumentParser):
    """An argument parser whose mistakes are errors of ours, with the nearest option."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(
            prog=prog,
            allow_abbrev=False,  # `--worker` is a mistake, and not `--workers`
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )
        self.name = prog.removeprefix("vscrapy ")  # messages begin with `vscrapy:` already

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line.

        Raises:
            ConfigError: always.
        """
        if found := _IN_ARGPARSE.fullmatch(message):
            option, text = found.groups()
            text = text.replace("expected one argument", "a value is needed after it")
            raise ConfigError(f"{option}: {text}")
        if found := _NEEDED.fullmatch(message):
            raise ConfigError(f"{self.name}: {found[1]} is missing; {self.epilog or 'see --help'}")
        raise ConfigError(f"{self.name}: {message}")

    def parse_all(self, words: Sequence[str]) -> argparse.Namespace:
        """The options.

        Raises:
            ConfigError: a word is not understood.
        """
        options, unknown = self.parse_known_args(list(words))
        wrong = next((word for word in unknown if word.startswith("-")), "")
        if wrong:
            name = wrong.partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            raise ConfigError(f"unknown option {name}{_near(name, known)}")
        if unknown:
            raise ConfigError(f"{self.name}: one word too many: {' '.join(unknown)!r}")
        return options

    def _parse_optional(self, arg_string: str) -> Any:
        # As in Scrapy's own parser.
        return None if arg_string.startswith(_STDOUT_FEED) else super()._parse_optional(arg_string)


@functools.cache
def parser(prog: str, target: str) -> OptionParser:
    """The options of a crawl; made once, and changed by nobody.

    Args:
        prog: as typed: `vscrapy crawl`, `%%vcrawl`.
        target: what is named first: `spider` or `spider_file`.
    """
    kind = "runspider" if target == "spider_file" else "crawl"
    kind = "cell" if prog.startswith("%") else kind
    parse = OptionParser(
        prog,
        description="Run a spider on several workers. Scrapy's options mean what they always mean.",
        epilog=_EXAMPLES[kind].format(prog=prog),
        add_help=False,
        usage=f"{prog.replace('%', '%%')} [options] <{target}>",
    )
    parse.add_argument("target", metavar=f"<{target}>", nargs="?", help=argparse.SUPPRESS)
    _scrapys(parse.add_argument_group("Scrapy's options"))
    _ours(parse.add_argument_group("Options of vscrapy"))
    return parse


def _scrapys(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("-h", "--help", action="store_true", help="show this")
    pairs_of: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    feeds: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    group.add_argument("-a", dest="args", help="set a spider argument (repeatable)", **pairs_of)
    group.add_argument(
        *("-o", "--output"),
        help="append items to FILE here, as if local (- for standard output; FILE:FORMAT)",
        **feeds,
    )
    group.add_argument(
        *("-O", "--overwrite-output"),
        dest="overwrite",
        help="the same, and begin FILE anew",
        **feeds,
    )
    group.add_argument(
        "-s", "--set", dest="settings", help="set a setting (repeatable)", **pairs_of
    )
    group.add_argument(
        *("-L", "--loglevel"),
        metavar="LEVEL",
        default="",
        help="log level of all workers (DEBUG)",
    )
    group.add_argument("--logfile", metavar="FILE", default="", help="log of all workers, here")
    group.add_argument("--nolog", action="store_true", help="no log at all")
    group.add_argument("--pidfile", metavar="FILE", default="", help="write this process's id here")
    group.add_argument("--profile", metavar="FILE", default="", help="not on workers; says so")
    group.add_argument(
        "--pdb", action="store_true", help="stop in the debugger at the first failure of the crawl"
    )


def _ours(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--workers", metavar="N", type=whole, help="at most N workers (all)")
    group.add_argument("--bg", action="store_true", help="return at once; the crawl goes on")
    group.add_argument(
        "--detach", action="store_true", help="return at once; the crawl outlives its sender"
    )
    group.add_argument("--as", dest="variable", metavar="VAR", default="", help="name the result")
    group.add_argument(
        "--keep-open", action="store_true", help="do not end when there is nothing left to do"
    )
    group.add_argument(
        "--record", action="store_true", help="keep all pages, to run an edited spider on them"
    )
    named: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        "--file", dest="files", metavar="PATH", help="send a data file along (repeatable)", **named
    )
    env = "send an environment variable along; its value is never shown (repeatable)"
    group.add_argument("--env", metavar="NAME", help=env, **named)
    group.add_argument("--redis", metavar="URL", default="", help="another Redis than configured")
    group.add_argument("--no-break", action="store_true", help="stop at no breakpoint()")
    group.add_argument("--quiet", action="store_true", help="log level WARNING")
    ttl = "silence of this sender after which the crawl is cancelled (10)"
    group.add_argument("--ttl", metavar="SECONDS", type=number, help=ttl)


def whole(text: str) -> int:
    """The whole number that an option needs."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    """The number that an option needs."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def parse_words(words: Sequence[str], prog: str, target: str = "spider") -> CrawlOptions:
    """The options in `words`.

    Raises:
        ConfigError: a word is wrong; one line, with the nearest right one.
    """
    parse = parser(prog, target)
    if _asks_for_help(words):
        return CrawlOptions(help=parse.format_help())
    found = parse.parse_all(words)
    if not found.target:
        raise ConfigError(f"{parse.name}: which {target.replace('_', ' ')}? {parse.epilog}")
    _check(found)
    return CrawlOptions(
        target=found.target,
        args=pairs(found.args, "-a"),
        settings=pairs(found.settings, "-s"),
        output=tuple(found.output),
        overwrite=tuple(found.overwrite),
        logfile=found.logfile,
        loglevel=_level(found.loglevel),
        nolog=found.nolog,
        quiet=found.quiet,
        profile=found.profile,
        pidfile=found.pidfile,
        pdb=found.pdb,
        no_break=found.no_break,
        workers=found.workers,
        background=found.bg,
        detach=found.detach,
        variable=found.variable,
        keep_open=found.keep_open,
        record=found.record,
        files=tuple(found.files),
        env=tuple(found.env),
        redis=found.redis,
        ttl_s=found.ttl,
    )


def parse_line(text: str, prog: str, target: str = "spider") -> CrawlOptions:
    """The options in a line as one types it in a shell; nothing in it is evaluated.

    Raises:
        ConfigError: as `parse_words`, or a quote is not closed.
    """
    return parse_words(split_line(text), prog, target)


def split_line(text: str) -> list[str]:
    """The words of a line, quotes as in a shell.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise ConfigError(f"{text.strip()!r}: {str(exc).lower()}") from exc


def _asks_for_help(words: Sequence[str]) -> bool:
    before = words[: words.index("--")] if "--" in words else words
    return bool(_HELP_WORDS & set(before))


def _check(found: argparse.Namespace) -> None:
    if found.workers is not None and found.workers < 1:
        raise ConfigError(f"--workers {found.workers}: at least one is needed")
    if found.ttl is not None and found.ttl < 1:
        raise ConfigError(f"--ttl {found.ttl:g}: at least one second is needed")
    if found.variable and not found.variable.isidentifier():
        raise ConfigError(f"--as {found.variable}: that is no name of a variable")
    if found.output and found.overwrite:
        raise ConfigError("-o and -O: use one of them, as with Scrapy")
    if found.redis:
        check_url(found.redis, source="--redis")


def _level(text: str) -> str:
    level_number(text)
    return text.upper()


def level_number(text: str) -> int:
    """The number of a log level; 0 for no text.

    Raises:
        ConfigError: there is no such level.
    """
    level, levels = text.upper(), logging.getLevelNamesMapping()
    if level and level not in levels and not level.isdecimal():
        raise ConfigError(f"-L {text}: no log level{_near(level, LEVELS)}; {', '.join(LEVELS)}")
    return levels[level] if level in levels else int(level or 0)


def pairs(options: Sequence[str], letter: str) -> dict[str, str]:
    """NAME=VALUE options as a dictionary; later ones win.

    Raises:
        ConfigError: one has no `=`.
    """
    found = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator or not name:
            raise ConfigError(f"{letter} {option}: write it as {letter} NAME=VALUE")
        found[name] = value
    return found


def setting_notes(given: Iterable[str], known: Sequence[str], own: Iterable[str]) -> list[str]:
    """A hint for each setting whose name is nearly one of Scrapy's.

    Not refused: projects have settings of their own, and some are read by nothing but a spider.

    Args:
        given: names after `-s`.
        known: Scrapy's names.
        own: names that the project or the spider sets.
    """
    strange = set(given) - set(known) - set(own)
    notes = []
    for name in sorted(strange):
        if close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=_CLOSE):
            notes.append(f"-s {name}: Scrapy has no such setting; did you mean {close[0]}?")
    return notes


def no_effect_notes(settings: Mapping[str, Any]) -> list[str]:
    """What settings in force say that workers cannot do, in a sentence each."""
    return [
        f"{name} has no effect: {why}"
        for name, (default, why) in _NO_EFFECT.items()
        if settings.get(name) not in (None, "", default)
    ]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one; empty when none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return close[0] if close else ""


def _near(word: str, known: Iterable[str]) -> str:
    close = nearest(word, known)
    return f"; did you mean {close}?" if close else ""
