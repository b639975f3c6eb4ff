"""Code examples as Scrapy's own documentation has them: cut out of a release, kept nowhere here.

A source release of Scrapy carries its documentation. It is fetched by pip, once per test session,
so the examples are those of the installed release and nobody here wrote or touched them.
"""

import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
import scrapy

from tests.foreign import locked, session_folder

FETCH_S = 120.0
_DIRECTIVE = re.compile(r"( *)\.\. code-block:: *python$")
_DEFINES = re.compile(r"^\s*(class|def|async def) ", re.MULTILINE)
_OPTION = re.compile(r"\s+:[\w-]+:")


class Documents:
    """The documentation of one release."""

    def __init__(self, release: str, folder: Path) -> None:
        self.folder = folder / f"scrapy-{release}"
        if not self.folder.exists():
            _fetch(release, self.folder)

    def example(self, document: str, pattern: str) -> str:
        """The only block of Python code of a document in which a pattern is found."""
        (path,) = self.folder.glob(f"*/docs/{document}.rst")
        found = [block for block in _blocks(path.read_text()) if re.search(pattern, block)]
        assert len(found) == 1, f"{len(found)} examples of {document} have {pattern}"
        return found[0]

    def code(self) -> list[tuple[str, str]]:
        """Document and text of each block of Python code that defines a class or a function."""
        (root,) = self.folder.glob("*/docs")
        return [
            (str(path.relative_to(root).with_suffix("")), block)
            for path in sorted(root.rglob("*.rst"))
            for block in _blocks(path.read_text())
            if _DEFINES.search(block)
        ]


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Those of the installed release; fetched once per session, whichever process comes first."""
    shared = session_folder(tmp_path_factory)
    with locked(shared / "documents.lock"):
        return Documents(scrapy.__version__, shared / "documents")


def _fetch(release: str, folder: Path) -> None:
    words = ("download", "--quiet", "--no-deps", "--no-binary", "scrapy", "--dest", str(folder))
    ended = subprocess.run(
        [sys.executable, "-m", "pip", *words, f"scrapy=={release}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_S,
    )
    if ended.returncode:
        pytest.skip(f"Scrapy's documentation is not to be had here: {ended.stderr[-300:]}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _blocks(text: str) -> list[str]:
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            continue
        block = []
        for inner in lines[number + 1 :]:
            if inner.strip() and not inner.startswith(directive[1] + " "):
                break
            if not _OPTION.match(inner):
                block.append(inner)
        found.append(textwrap.dedent("\n".join(block)).strip("\n") + "\n")
    return found
