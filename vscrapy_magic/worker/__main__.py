"""`python -m vscrapy_magic.worker`: how a session starts the workers of its local cluster."""

import sys

from vscrapy_magic.worker.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
