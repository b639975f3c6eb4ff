"""Owns how something that awaits is run to its end where an event loop is busy already.

Used where user code is run for its user: in cells, and when a failed call is run again.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


def run_in_thread(coroutine: Coroutine[Any, Any, Any], name: str) -> None:
    """Run it in a loop of its own, in a thread: that of the caller may be busy running us.

    Blocks until it has ended.

    Args:
        name: of the thread.

    Raises:
        BaseException: whatever it raises.
    """
    problem: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as exc:  # noqa: BLE001 - raised again where it was called
            problem.append(exc)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
