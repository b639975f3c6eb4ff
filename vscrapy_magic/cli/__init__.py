"""Owns the command line `vscrapy`: every module translates one noun's words and calls below.

Runs in the user's terminal. What is no command of ours is handed to `scrapy` unchanged, so that
one letter more always works. Modules are imported when their command is typed.
"""

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from vscrapy_magic.config import check_platform
from vscrapy_magic.errors import VscrapyError
from vscrapy_magic.version import __version__

EXIT_INTERRUPTED: Final = 130
USAGE_ERROR: Final = 2
_CLOSE: Final = 0.8  # of difflib: no command of Scrapy is so much like one of ours
_HELP: Final = f"""vscrapy {__version__}: Scrapy crawls on many workers

  vscrapy crawl NAME [options]         a spider of this Scrapy project
  vscrapy runspider FILE [options]     the spider in one file
  vscrapy demo                         see it work; needs no network

  vscrapy -l [--json]                  all crawls and workers
  vscrapy workers [--json]             who is there to work
  vscrapy stop ID [--now] | --all      stop (or kill) a crawl
  vscrapy logs ID [-f] [-n N]          log lines of all workers
  vscrapy items ID [-n N] [-O FILE]    items as JSON lines, or as a feed
  vscrapy attach ID [-O FILE]          collect a crawl that has lost its sender
  vscrapy errors ID                    failures, grouped
  vscrapy set ID NAME=VALUE ...        change a running crawl
  vscrapy push ID URL ...              add URLs to a running crawl
  vscrapy patch ID [FILE]              bring the spider as it is now into it
  vscrapy retry ID [N]                 run failed requests again
  vscrapy replay ID [N]                the spider as it is now, on what failed
                                       and on the pages of --record

  vscrapy worker [URL] [-n N]          serve crawls until SIGTERM
  vscrapy config [--redis URL]         show or set the default Redis
  vscrapy config --shared [NAME=VALUE] defaults for all senders and workers

Anything else (startproject, genspider, list, shell, ...) is handed to scrapy.
Each command has --help. Redis: --redis, VSCRAPY_REDIS_URL, `vscrapy config`, or
else a local cluster that starts and ends by itself.
"""
# Command -> module and function.
_COMMANDS: Final = {
    "crawl": ("crawl", "crawl"),
    "runspider": ("crawl", "runspider"),
    "demo": ("demo", "demo"),
    "-l": ("lists", "crawls"),
    "--list": ("lists", "crawls"),
    "workers": ("lists", "workers"),
    "stop": ("running", "stop"),
    "set": ("running", "change"),
    "push": ("running", "push"),
    "patch": ("again", "patch"),
    "retry": ("again", "retry"),
    "replay": ("again", "replay"),
    "logs": ("kept", "logs"),
    "items": ("kept", "items"),
    "attach": ("attach", "attach_here"),
    "errors": ("kept", "errors"),
    "config": ("settings", "config"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 a mistake in what was typed."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else "--help"
    if command in {"-h", "--help"}:
        sys.stdout.write(_HELP)
        return 0
    try:
        check_platform()
        return _command(command)(words[1:] if command in _COMMANDS else words)
    except VscrapyError as exc:
        sys.stderr.write(f"vscrapy: {exc}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for one, has what it wanted; nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name == "worker":
        from vscrapy_magic.worker.main import main as worker_main

        return lambda words: worker_main(words[1:])
    if name not in _COMMANDS:
        return _scrapy
    module, function = _COMMANDS[name]
    found: Callable[[Sequence[str]], int] = getattr(
        import_module(f"vscrapy_magic.cli.{module}"), function
    )
    return found


def _scrapy(words: Sequence[str]) -> int:
    close = difflib.get_close_matches(words[0], [*_COMMANDS, "worker"], n=1, cutoff=_CLOSE)
    if close:
        sys.stderr.write(
            f"vscrapy: {words[0]} goes to scrapy; did you mean `vscrapy {close[0]}`?\n"
        )
    command = [sys.executable, "-P", "-m", "scrapy", *words]
    os.execv(sys.executable, command)  # noqa: S606 - the same program as this one
