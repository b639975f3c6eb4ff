"""Owns `%vretry`: failed requests go back into their crawl; one that is over goes on, and is shown.

Runs in the kernel's main thread.
"""

from collections.abc import Sequence

from vscrapy_magic.errors import ConfigError
from vscrapy_magic.notebook.kernel import Kernel
from vscrapy_magic.notebook.running import Running
from vscrapy_magic.notebook.screen import screen_for
from vscrapy_magic.sender.crawl import Crawl
from vscrapy_magic.sender.retrying import ALL, failure_of
from vscrapy_magic.store.crawls import ID_CHARS

_WORDS_MAX = 2


def retry(kernel: Kernel, words: Sequence[str], *, background: bool = False) -> str:
    """Put failed requests back.

    Args:
        words: number of a failure or `all`, and id of a crawl, in any order; both may be left out.
        background: do not wait for a crawl that goes on.

    Returns:
        What came of it, for the user.

    Raises:
        ConfigError: there is no such failure.
        StateError: the crawl cannot go on.
    """
    which = [word for word in words if word == ALL or (word.isdecimal() and len(word) < ID_CHARS)]
    ids = [word for word in words if word not in which]
    if len(words) > _WORDS_MAX or len(which) > 1 or len(ids) > 1:
        raise ConfigError("%vretry: a number or `all`, and one crawl at most; %vretry 3 1a2b3c4d")
    number = failure_of(which[0] if which else ALL, "%vretry")
    crawl, retried = kernel.session.retry((ids or [kernel.crawl().id])[0], number)
    text = f"crawl {crawl.id}: {retried}"
    if retried.reopened:
        _show(kernel, crawl, text, background=background)
    return text


def _show(kernel: Kernel, crawl: Crawl, text: str, *, background: bool) -> None:
    """Show a crawl that goes on as one that begins, and wait for it."""
    screen = screen_for(
        kernel.shell, blocking=not background, on_stop=lambda now: crawl.stop(now=now)
    )
    screen.notice(text)
    screen.show()
    crawl.listen(screen)
    running = Running(crawl, screen, blocking=not background)
    crawl.listen(running)
    kernel.remember(crawl, screen)
    if not background:
        running.wait()
