"""Every notebook of the repository runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from jupyter_core.utils import ensure_event_loop
from nbclient import NotebookClient

from tests.clusters import cluster_home

SHOWN = {
    "01-quickstart": ("finished", "ZeroDivisionError"),
    "02-debugging": (
        "here as on local-",
        "nobody can type here",
        "fixed: now yields 1 item",
        "echo",
        "code version 2 is in force",
    ),
}
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCRAPY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}})
    with cluster_home(monkeypatch, idle_s="0.5"):
        client.execute()
    ensure_event_loop().close()  # jupyter_client's own, for blocking calls: it would keep it
    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    missing = [words for words in SHOWN[path.stem] if words not in text]
    assert not missing
    assert list((tmp_path / "spool").iterdir())
