"""Named places at which one process each dies, and who died there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import vscrapy_magic
from vscrapy_magic.failpoints import FAIL_VARIABLE, ONCE_VARIABLE

PACKAGE = Path(vscrapy_magic.__file__).parent


class Deaths:
    """One process dies at each of some places; whoever comes in its stead goes on.

    Args:
        folder: of its own.
        points: names, with `:n` for the n-th pass.
    """

    def __init__(self, folder: Path, *points: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._points = points

    @property
    def environment(self) -> dict[str, str]:
        return {FAIL_VARIABLE: ",".join(self._points), ONCE_VARIABLE: str(self._folder)}

    def missing(self) -> set[str]:
        """Places where nobody has died yet."""
        return {name_of(point) for point in self._points} - set(self.pids())

    def pids(self) -> dict[str, int]:
        """Who died, by place."""
        found = {path.name: path.read_text() for path in self._folder.iterdir()}
        return {name: int(text) for name, text in found.items() if text}


def name_of(point: str) -> str:
    return point.partition(":")[0]


def names_in_the_package() -> dict[str, list[str]]:
    """All places that the package has: name, and the lines where it stands."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in _calls(ast.parse(path.read_text())):
            name = ast.unparse(call.args[0])
            place = f"{path.relative_to(PACKAGE)}:{call.lineno}"
            found.setdefault(ast.literal_eval(name), []).append(place)
    return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("fail_point"):
            yield node
