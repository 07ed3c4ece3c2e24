"""Rung 7: the test confusion matrix, true, and near-random by each known mistake of evaluation."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from nutclf.evaluate.predictions import prediction_table
from nutclf.evaluate.puzzle import (
    Exhibit,
    exhibit,
    in_another_order,
    pixels_that_become,
    under_other_names,
)
from nutclf.model.backbones import BackboneSpec
from nutclf.model.network import predict_pixels
from nutclf.search.rows import Row
from nutclf.search.rungs import CLAIM
from nutclf.track.evaluation import FOLDER, write_evaluation
from nutclf.track.runs import Run, write_json
from nutclf.train.learner import Learner
from nutclf.train.workbench import LabelledImages, Workbench

NUMBER, TITLE = 7, "test confusion matrix"


def solve_puzzle(
    run: Run, bench: Workbench, learner: Learner, open_test: Callable[[], LabelledImages]
) -> list[Row]:
    """Evaluates one good model rightly and wrongly; nothing is chosen by what is seen.

    Args:
      run: of the rung; it counts the opening of the test split, and holds the figure.
      bench: that trained the model.
      learner: fitted.
      open_test: reads the sealed split; called once.

    Returns:
      The rung's lines of the table, the true matrix first.
    """
    # Counted before it happens: what is cut off afterwards has been opened too.
    run.tags({"test_openings": 1})
    run.params({"backbone": bench.config.backbone, "seed": bench.config.seed})
    test, classes = open_test(), bench.classes
    whole, _ = bench.assemble(learner)
    table = _predictions(whole, test, test.pixels, classes)
    again = predict_pixels(whole, test.pixels).argmax(axis=1)
    write_evaluation(run, "test", table, classes, float(np.mean(again == test.labels)))
    tables = _evaluations(whole, bench.backbone.spec, test, table, classes, bench.config.seed)
    exhibits = [exhibit(key, cause, *of, classes, CLAIM) for key, (cause, *of) in tables.items()]
    _record(run, exhibits)
    return [_row(shown) for shown in exhibits]


def _evaluations(
    whole: keras.Model,
    spec: BackboneSpec,
    test: LabelledImages,
    table: pd.DataFrame,
    classes: Sequence[str],
    seed: int,
) -> dict[str, tuple[str, pd.DataFrame]]:
    """Each way to evaluate the model, by key: what was done, and the predictions it leaves."""

    def seeing(inputs: np.ndarray) -> pd.DataFrame:
        """Predictions of the network when it is handed `inputs` past its own scaling."""
        pixels = pixels_that_become(inputs, spec.scale, spec.offset)
        return _predictions(whole, test, pixels, classes)

    return {
        "true": ("evaluated rightly", table),
        "shuffled": (
            "predictions in shuffled order, labels in folder order",
            in_another_order(table, classes, seed),
        ),
        "unscaled": ("scaling forgotten: the network sees 0 to 255", seeing(test.pixels)),
        "scaled_to_one": ("another scaling: the network sees 0 to 1", seeing(test.pixels / 255)),
        "renamed": ("class names in another order", under_other_names(table, classes, seed)),
    }


def _predictions(
    whole: keras.Model, images: LabelledImages, pixels: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    return prediction_table(images.paths, images.labels, predict_pixels(whole, pixels), classes)


def _record(run: Run, exhibits: Sequence[Exhibit]) -> None:
    """The figure, the matrices with their diagnoses as JSON, and each verdict as a tag."""
    from nutclf.evaluate.gallery import gallery

    for shown in exhibits:
        found = shown.diagnosis
        run.tags({f"puzzle/{shown.key}": f"{found.verdict}: {found.sentence()}"})
    run.metrics({f"puzzle_{shown.key}_accuracy": shown.rate.share for shown in exhibits})
    title = "One model, one test split: how a good network gets a near-random matrix"
    detail = (
        f"verdicts against the claimed accuracy, {CLAIM}; 95% Wilson intervals; columns in the "
        "order of the rows"
    )
    with run.artifacts() as folder:
        write_json(folder / FOLDER / "puzzle.json", [shown.record() for shown in exhibits])
        gallery(exhibits, title, detail).savefig(folder / FOLDER / "puzzle.png")


def _row(shown: Exhibit) -> Row:
    published = "close to random" if shown.key == "true" else ""
    here = f"{shown.rate.share:.3f}, {shown.diagnosis.verdict}"
    return Row(NUMBER, TITLE, f"accuracy, {shown.cause}", published, here, shown.rate)
