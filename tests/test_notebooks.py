"""Every notebook runs from its first cell to its last, and carries the outputs of a whole run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CACHE
from ipykernel.kernelspec import write_kernel_spec

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
EXECUTE = "from nbclient.cli import main; main()"

SHORTER = {
    "01_meta_train": {"outer_steps=120": "outer_steps=50", "decay_steps=120": "decay_steps=50"},
    "02_use_pretrained": {"STEPS, BATCH = 200, 64": "STEPS, BATCH = 50, 16"},
    "03_evaluate": {"num_steps=100": "num_steps=20", "seeds=5": "seeds=2"},
    "04_new_task": {"range(400)": "range(20)", "seeds=64": "seeds=4"},
    "05_task_zoo": {
        "outer_steps=120": "outer_steps=12",
        "decay_steps=120": "decay_steps=12",
        '    "progress task=signal_mlp_64",': "",
        '    "progress task=digits_autoencoder_32x32x32",': "",
        "num_steps=100": "num_steps=10",
    },
    "06_general_optimizer": {
        "RATES = 400, 20, (0.01, 0.03, 0.1)": "RATES = 20, 10, (0.03,)",
        "STEPS = 1000": "STEPS = 20",
    },
    "estimators": {
        "updates=1000": "updates=20",
        "populations=8": "populations=2",
        '"particles": 2400': '"particles": 240',
        '"particles": 600': '"particles": 6',
        "START, 3)": "START, 2)",
        "1200": "60",
        "(256, 2)": "(8, 2)",
        "3e-5, 400": "3e-5, 10",
        "1e-5, 1000": "1e-5, 10",
        "3e-4, 1000": "3e-4, 10",
        "updates=120, runs=4": "updates=2, runs=2",
    },
    "policies": {"outer_steps=300": "outer_steps=20"},
}
"""What their tests run less of: enough for every line, too little for the results they speak of."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.weekly
@every_notebook
def test_it_runs(path, tmp_path):
    """In a process of its own, whose kernel is this very interpreter wherever others are known."""
    write_kernel_spec(str(tmp_path / "kernels" / "python3"))
    notebook = json.loads(path.read_text())
    sources = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for whole, short in SHORTER[path.stem].items():
        assert any(whole in line for source in sources for line in source), whole
        for source in sources:
            source[:] = [line.replace(whole, short) for line in source]
    shorter = tmp_path / path.name
    shorter.write_text(json.dumps(notebook))
    run = subprocess.run(
        [sys.executable, "-c", EXECUTE, "--timeout=600", str(shorter)],
        env=os.environ | {"JUPYTER_PATH": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": CACHE},
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
