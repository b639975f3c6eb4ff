"""Named fail-points: the process that passes the named place is gone, without clean-up."""

import os
import signal
import subprocess
import sys

CODE = """
import atexit
from vscrapy_magic.failpoints import fail_point
atexit.register(print, "cleaned up")
for n in range(3):
    fail_point("other")
    fail_point("here")
    print(n, flush=True)
"""


def run(fail: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VSCRAPY_FAIL": fail}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_happens_unless_asked_for() -> None:
    assert run("").stdout == "0\n1\n2\ncleaned up\n"
    assert run("elsewhere").returncode == 0


def test_the_nth_pass_kills() -> None:
    for fail, printed in (("here", ""), ("here:3", "0\n1\n")):
        ended = run(fail)
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, printed)
