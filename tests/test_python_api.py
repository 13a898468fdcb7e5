"""The Python of docs/python.md and of the notebooks runs as it is, with few steps."""

import os
import pathlib
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_the_blocks_of_the_documentation_run_in_order(tmp_path):
    program = "\n".join(BLOCKS)
    assert program.count("total_steps=200") == 1
    (tmp_path / "program.py").write_text(program.replace("total_steps=200", "total_steps=4"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "digit_0.png [(" in done.stdout
    assert "--ckpt runs/pyton does not exist" in done.stdout
    assert (tmp_path / "exported/digits/model.onnx").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("STEPS", "20")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "examples").mkdir()
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "strip the outputs"
    resources = {"metadata": {"path": str(tmp_path / "examples")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    figures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 3
    assert (tmp_path / "runs/first_steps/config.json").exists()
