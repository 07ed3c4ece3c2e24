"""The winner's spread over seeds, written on the study's run, and run once."""

import numpy as np
import pytest

from nutclf.search.seeds import N_SEEDS, spread_over_seeds


@pytest.fixture(scope="module")
def scored(tmp_path_factory, migrated, begin, tiny_config, bench, data_facts, copy_store):
    """A store with a study of one trial; the spread, asked for twice, and what was said."""
    store = copy_store(migrated, tmp_path_factory.mktemp("seeds") / "store")
    study, runner = begin(store, tiny_config)
    runner.run(study, study.ask())
    said, parent = [], runner._parent
    first, again = (
        spread_over_seeds(study, tiny_config, bench, data_facts, parent, None, said.append, "me")
        for _ in range(2)
    )
    return store, study, parent, first, again, said


def test_three_seeds_the_first_of_them_the_trial_itself(scored):
    _, study, _, spread, _, _ = scored
    assert len(spread.values) == N_SEEDS == len(set(spread.values))
    assert spread.values[0] == study.best_value


def test_it_stands_on_the_run_of_the_study(scored):
    _, _, parent, spread, _, said = scored
    data = parent.client.get_run(parent.run_id).data
    assert data.metrics["winner_best_valid_loss_mean"] == pytest.approx(np.mean(spread.values))
    expected = np.std(spread.values, ddof=1)
    assert data.metrics["winner_best_valid_loss_std"] == pytest.approx(expected)
    assert data.tags["winner_seeds"] == spread.sentence() == said[0]


def test_seeds_that_were_run_are_not_run_again(scored):
    store, _, _, spread, again, said = scored
    runs = store.client().search_runs([store.experiment_id("nutclf")], "tags.kind = 'seed'")
    assert (again, len(said)) == (spread, 1)
    assert sorted(run.data.params["seed"] for run in runs) == ["1", "2"]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_seed_is_no_candidate_for_promotion(scored, tiny_config):
    from nutclf.track.registry import best_run

    store, *_ = scored
    found = best_run(
        store.client(), store.experiment_id("nutclf"), tiny_config.name, tiny_config.objective
    )
    assert found.data.tags["kind"] == "trial"
