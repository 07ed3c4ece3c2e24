"""A job is a pure function: it refuses other images and other weights than it was made for."""

from dataclasses import replace

import numpy as np
import pytest

from nutclf.config import Recipe
from nutclf.errors import UserError
from nutclf.search.driver import prepare
from nutclf.train.jobs import AssembleJob, FitJob, run

RECIPE = Recipe(epochs=2, lr_schedule="constant")


@pytest.fixture(scope="module")
def setting(source, features, tiny_config):
    return prepare(tiny_config, source, None, features, print, "random")[0]


def go(job, heard=None):
    return run(job, lambda *epoch: heard is None or heard.append(epoch), print)


def test_a_fit_tells_its_epochs_and_an_assembly_gives_its_probabilities(setting):
    heard = []
    result = go(FitJob(setting, RECIPE, seed=0), heard)
    assert [figures for _, figures in heard] == result.history.epochs
    assembled = go(AssembleJob(setting, result))
    np.testing.assert_allclose(assembled.y_prob, result.valid[0], atol=1e-4)


def test_a_job_is_the_same_each_time(setting):
    first, again = (go(FitJob(setting, RECIPE, seed=1)) for _ in range(2))
    np.testing.assert_array_equal(first.valid, again.valid)
    assert first.history == again.history


def test_other_weights_are_refused(setting):
    with pytest.raises(UserError, match=r"other weights of tiny.*NUTCLF_WEIGHTS"):
        go(FitJob(replace(setting, digest="0" * 64), RECIPE, seed=0))


def test_other_images_are_refused(setting):
    data = setting.data
    files = data.files.copy()
    files.loc[0, "sha256"] = "0" * 64
    with pytest.raises(UserError, match="has changed since the data were listed"):
        go(FitJob(replace(setting, data=replace(data, files=files)), RECIPE, seed=0))
