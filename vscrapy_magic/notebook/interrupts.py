"""Owns how a cell ends that was interrupted, has failed, or could not begin: with one line.

Runs in the kernel's main thread. A cell whose crawl was interrupted has to end with an error: an
interrupt that is swallowed would let "Run All" go on.
"""


class _OneLine(BaseException):
    """Shown by IPython as its message, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class CrawlInterruptedError(_OneLine, KeyboardInterrupt):
    """The user has stopped the crawl of this cell."""


class CrawlFailedError(_OneLine, Exception):
    """The crawl of this cell has failed; the panel says more."""


class UsageError(_OneLine, Exception):
    """A magic was used wrongly, or cannot do what was asked."""
