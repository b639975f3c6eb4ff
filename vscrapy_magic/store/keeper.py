"""Owns an embedded server that ends with its parent, however that ends.

Run as `python -m vscrapy_magic.store.keeper FOLDER`: starts the server, prints its address, and
stops it when standard input ends; the kernel closes that pipe also for a parent that was killed.
"""

import signal
import sys
from pathlib import Path

from vscrapy_magic.errors import ServerStartError
from vscrapy_magic.store.server import EmbeddedServer

EXIT_NOT_STARTED = 1


def main(folder: str) -> int:
    """Keep a server until standard input ends; the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with EmbeddedServer(Path(folder)) as server:
            sys.stdout.write(server.url + "\n")
            sys.stdout.flush()
            sys.stdin.read()
    except ServerStartError as exc:
        sys.stdout.write(f"!{exc}\n")
        return EXIT_NOT_STARTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
