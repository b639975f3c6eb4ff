"""Owns `python -m vscrapy_magic.cli`, the same as `vscrapy`."""

import sys

from vscrapy_magic.cli import main

if __name__ == "__main__":
    sys.exit(main())
