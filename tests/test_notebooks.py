"""Every notebook runs from its first cell to its last, and carries the outputs of such a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ipykernel.kernelspec import write_kernel_spec

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
EXECUTE = "from nbclient.cli import main; main()"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_it_runs(path, tmp_path):
    """In a process of its own, whose kernel is this very interpreter wherever others are known."""
    write_kernel_spec(str(tmp_path / "kernels" / "python3"))
    run = subprocess.run(
        [sys.executable, "-c", EXECUTE, "--timeout=600", str(path)],
        env=os.environ | {"JUPYTER_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@every_notebook
def test_its_outputs_are_there_and_small(path):
    text = path.read_text()
    assert len(text) < 400_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "display_data" in kinds and "error" not in kinds
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell["outputs"])
    assert str(Path.home()) not in text and "execution" not in json.dumps(
        [cell["metadata"] for cell in cells]
    )
