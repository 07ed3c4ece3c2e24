"""The notebooks run from top to bottom, and are kept without what they printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert {(str(cell["outputs"]), cell["execution_count"]) for cell in code} == {("[]", None)}


@pytest.fixture(scope="module")
def store(cli, nuts, tmp_path_factory):
    """Records of a study of one trial, and its champion."""
    folder = tmp_path_factory.mktemp("notebooks") / "store"
    swept = cli(
        "sweep", "--study", "quick", "--trials", 1, "--data", nuts, NUTCLF_STORE=str(folder)
    )
    assert swept.returncode == 0, swept.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, store, nuts, tmp_path):
    command = [sys.executable, "-m", "jupyter", "execute", str(path), "--output"]
    done = subprocess.run(
        [*command, str(tmp_path / "executed.ipynb")],
        env=os.environ | {"NUTCLF_STORE": str(store), "DATA": str(nuts), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
