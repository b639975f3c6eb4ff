"""Owns the making of syntax trees: one at a time.

Runs in the sender's process; safe from any thread. CPython 3.11 counts the depth of the tree that
it makes once for all threads, and two at once end in `SystemError: AST constructor recursion depth
mismatch`: two threads of one session may order crawls.
"""

import ast
import threading
from typing import Final

_one_at_a_time: Final = threading.Lock()


def tree_of(source: str | bytes, name: str, flags: int = 0) -> ast.Module:
    """The source as a tree.

    Args:
        name: of the file, in messages.
        flags: of the compiler, beside the one that makes trees.

    Raises:
        SyntaxError, ValueError, RecursionError: it is no Python, or too deep.
    """
    with _one_at_a_time:
        tree: ast.Module = compile(
            source, name, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True
        )
    return tree
