"""Syntax trees, made by several threads at once."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vscrapy_magic.sender import trees as trees_module
from vscrapy_magic.sender.trees import tree_of

OFTEN_S = 1e-6
FEW_OBJECTS = 20


@pytest.fixture
def threads_take_turns() -> Iterator[None]:
    """Python code runs while a tree is made, and so do other threads."""

    def collected(*_: object) -> None:
        sum(range(10))

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(OFTEN_S)
    gc.set_threshold(FEW_OBJECTS)
    gc.callbacks.append(collected)
    yield
    gc.callbacks.remove(collected)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def test_threads_that_make_trees_at_once_do_not_disturb_each_other(
    threads_take_turns: None,
) -> None:
    source = Path(trees_module.__file__).read_text()
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(lambda n: tree_of(source, str(n)), range(24)))
    assert {len(tree.body) for tree in trees} == {len(trees[0].body)}
