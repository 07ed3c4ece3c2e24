"""The sealed test split: opened once a run, and judged without the images that leaked into it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.data.folder import Split
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import labels, probabilities, write_predictions
from nutclf.track.evaluation import FOLDER, stored_json, stored_predictions, write_evaluation
from nutclf.track.models import LoadSplit, Reloaded
from nutclf.track.runs import Run, write_json

LEAKS, WHOLE = "test_leaks", "test_with_leaks"
_NAMED = 5  # leaks that a sentence lists; the tag and the artifact have all

FindLeaks = Callable[[], Mapping[str, str]]
"""Gives each test image that train or valid has too, with the path of the image there."""


@dataclass(frozen=True)
class OnTest:
    """How a model does on the test split.

    Attributes:
      clean: on the images that no other split has: the headline. None when none are left.
      with_leaks: on all of them.
      leaks: test image -> the image of train or valid that shows the same.
    """

    clean: Rate | None
    with_leaks: Rate
    leaks: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """The leaks by name; nothing where there are none."""
        return {LEAKS: "; ".join(self._named())} if self.leaks else {}

    def sentence(self) -> str:
        """Both figures, and why they differ."""
        if not self.leaks:
            return f"Test accuracy {self.with_leaks}."
        named = self._named()
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        listed = ", ".join(named[:_NAMED]) + more
        if self.clean is None:
            return (
                f"No test accuracy: train or valid have every test image too ({listed}); "
                f"on those {self.with_leaks}."
            )
        return (
            f"Test accuracy {self.clean}, without {len(named)} of {self.with_leaks.n} test images "
            f"that train or valid have too ({listed}); with them {self.with_leaks}."
        )

    def _named(self) -> list[str]:
        return [f"{test} is {other}" for test, other in self.leaks.items()]


def judge_on_test(
    run: Run, reloaded: Reloaded, load_split: LoadSplit, find_leaks: FindLeaks
) -> OnTest:
    """The model's figures on the test split: made once a run, read from its records afterwards.

    Metrics, matrix and predictions named `test` are those of images that no other split has.
    `test_accuracy_with_leaks`, `test_leaks` (a number, and a tag that names them) and
    `evaluation/predictions_test_with_leaks.csv` stand beside them.

    Args:
      run: of the model.
      reloaded: the model.
      load_split: "test" is asked for unless the run has its predictions; the opening is counted.
      find_leaks: asked unless the run knows its leaks.
    """
    leaks, whole = stored_json(run, f"{LEAKS}.json"), _recorded_predictions(run)
    if leaks is not None and whole is not None:
        return _figures(whole, leaks)
    found = find_leaks()
    if whole is None:
        whole = reloaded.predict(open_test(run, load_split, reloaded.image_size))
    leaks = {path: found[path] for path in whole["path"] if path in found}
    _record(run, whole, leaks, reloaded.classes)
    return _figures(whole, leaks)


def open_test(run: Run, load_split: LoadSplit, image_size: int) -> Split:
    """The test split; the opening is counted on the run of the model that will see it."""
    images = load_split("test", image_size)
    openings = int(run.client.get_run(run.run_id).data.tags.get("test_openings", 0))
    run.tags({"test_openings": openings + 1})
    return images


def _record(run: Run, whole: pd.DataFrame, leaks: Mapping[str, str], classes: list[str]) -> None:
    """Writes all predictions first and the leaks last: whatever ends this, it can be done again."""
    if leaks:
        with run.artifacts() as folder:
            (folder / FOLDER).mkdir()
            write_predictions(whole, folder / FOLDER / f"predictions_{WHOLE}.csv")
    clean, on_test = whole[~whole["path"].isin(leaks)], _figures(whole, leaks)
    if len(clean):
        y_true, _ = labels(clean, classes)
        # From the probabilities, and not from the column that the matrix is made of.
        accuracy = np.mean(probabilities(clean, classes).argmax(axis=1) == y_true)
        write_evaluation(run, "test", clean, classes, float(accuracy))
    run.metrics({"test_accuracy_with_leaks": on_test.with_leaks.share, LEAKS: len(leaks)})
    run.tags(on_test.tags)
    with run.artifacts() as folder:
        write_json(folder / FOLDER / f"{LEAKS}.json", dict(leaks))


def _recorded_predictions(run: Run) -> pd.DataFrame | None:
    """Of all test images, leaked or not; None where the split was not opened yet."""
    whole = stored_predictions(run, WHOLE)
    return stored_predictions(run, "test") if whole is None else whole


def _figures(whole: pd.DataFrame, leaks: Mapping[str, str]) -> OnTest:
    clean = whole[~whole["path"].isin(leaks)]
    return OnTest(_rate(clean) if len(clean) else None, _rate(whole), leaks)


def _rate(table: pd.DataFrame) -> Rate:
    return Rate(int((table["y_true"] == table["y_pred"]).sum()), len(table))
