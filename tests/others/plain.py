"""Plain Scrapy for many commands: Scrapy's own command line, imported once and forked for each.

A process of its own. Reads commands (JSON, a list of lists of words) from standard input; what each
writes goes to `<number>.log` in the folder of its first argument, its exit code to standard output.
"""

import json
import os
import sys
import traceback
from pathlib import Path

# What every command would import; no reactor among it.
import scrapy.cmdline
import scrapy.commands.runspider
import scrapy.core.engine
import scrapy.core.scraper
import scrapy.extensions.feedexport
import scrapy.linkextractors
import scrapy.loader
import scrapy.pipelines.files
import scrapy.spiders

AT_ONCE = 2


def command(words: list[str], log: Path) -> None:
    """Become `scrapy` with these words; does not return."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    code = 1
    try:
        scrapy.cmdline.execute(["scrapy", *words])
        code = 0
    except SystemExit as exc:
        code = int(exc.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    logs = Path(sys.argv[1])
    commands = json.load(sys.stdin)
    codes = [-1] * len(commands)
    running: dict[int, int] = {}
    for number, words in enumerate([*commands, None]):
        while len(running) >= (AT_ONCE if words else 1):
            pid, status = os.wait()
            codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        if words:
            pid = os.fork()
            if not pid:
                command(words, logs / f"{number}.log")
            running[pid] = number
    json.dump(codes, sys.stdout)


if __name__ == "__main__":
    main()
