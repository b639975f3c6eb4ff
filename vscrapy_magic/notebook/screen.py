"""Owns where a crawl is shown: in a live panel where there are widgets, as lines of text elsewhere.

Runs in the kernel's main thread. Widgets are imported when the first panel is made: the extension
has to load fast.
"""

import sys
from collections.abc import Callable

from IPython.core.interactiveshell import InteractiveShell

from vscrapy_magic.notebook.running import Screen


def screen_for(
    shell: InteractiveShell, *, blocking: bool, on_stop: Callable[[bool], object]
) -> Screen:
    """The screen for a crawl that begins now.

    Args:
        blocking: whether the cell waits for the crawl.
        on_stop: called when the panel's button is pressed and no cell blocks; True means at once.
    """
    if getattr(shell, "kernel", None) is None:
        from vscrapy_magic.notebook.plain import PlainSink

        return PlainSink(sys.stdout, is_notebook=False)
    from vscrapy_magic.notebook.panel import Panel

    return Panel(blocking=blocking, on_stop=on_stop)
