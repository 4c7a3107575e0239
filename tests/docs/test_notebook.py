"""The notebook runs from top to bottom, on a family that is trained for a moment only."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import DOCS, ROOT

SMALL = "FamilySize(base_steps=4, expert_steps=2, dev_documents=30, test_documents=30, trials=4)"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "size = FamilySize()" in cell.source)
    parameters.source = parameters.source.replace("FamilySize()", SMALL)
    client = NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}})
    client.execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    (shown,) = (output for output in last.outputs if output.output_type == "execute_result")
    assert int(shown["data"]["text/plain"]) > 1000


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []
