"""A sweep whose MLflow server goes away in the middle, and comes back."""

from contextlib import ExitStack

import pytest

from nutclf.config import OBJECTIVES, Recipe, SearchSpace, StudyConfig
from nutclf.search.places import Places
from nutclf.search.session import Session

CONFIG = StudyConfig(
    "away",
    "mobilenetv2-drawn",
    SearchSpace(n_unfrozen=(0, 4), epochs=(1, 2), lr_schedule=("constant",)),
    OBJECTIVES["valid"],
    baseline=Recipe(epochs=1, lr_schedule="constant"),
)


@pytest.mark.slow
def test_a_sweep_goes_on_without_its_server_and_the_next_one_delivers(
    server, remote, source, tmp_path
):
    lines, there = [], ExitStack()
    places = Places(remote, tmp_path / "features", 10**9)

    def say(line):
        lines.append(line)
        there.close()  # from the first result on, nobody answers

    with there:
        there.enter_context(server())
        session = Session(CONFIG, source, places, say)
        assert session.work(3)
    assert [line[:5] for line in lines if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    assert any("seeds wait" in line for line in lines)
    assert any("records wait" in line for line in lines)
    lines.clear()
    with server():
        assert Session(CONFIG, source, places, lines.append).work(3)
        assert not [line for line in lines if line.startswith("[")], "nothing was lost"
        assert any("from 3 seeds" in line for line in lines)
        client, experiment = remote.client(), remote.experiment_id("nutclf")
        runs = client.search_runs([experiment])
        kinds = sorted(run.data.tags["kind"] for run in runs)
        assert kinds == ["seed", "seed", "study", "trial", "trial", "trial"]
        assert {run.info.status for run in runs} == {"FINISHED"}
        for run in runs:
            if run.data.tags["kind"] == "trial":
                assert run.data.params["n_unfrozen"] in ("0", "4")
                assert run.outputs.model_outputs
                files = client.list_artifacts(run.info.run_id, "evaluation")
                assert "evaluation/predictions_valid.csv" in {file.path for file in files}
