"""How true a model's confidence is, written into its run."""

from nutclf.evaluate.recalibration import Recalibration
from nutclf.track.evaluation import FOLDER
from nutclf.track.runs import Run


def write_calibration(run: Run, split: str, found: Recalibration) -> None:
    """Logs `<split>_ece`, `<split>_ece_calibrated`, `temperature`, `confidence_threshold`, a curve.

    Args:
      run: of the model.
      split: "cv" or "valid", whose predictions it was found on.
      found: the curve `evaluation/calibration_<split>.png` is of its calibrated probabilities.
    """
    from nutclf.evaluate.figures import reliability_figure

    temperature = found.confidence.temperature
    run.metrics(
        {
            f"{split}_ece": found.error_before,
            f"{split}_ece_calibrated": found.error_after,
            "temperature": temperature,
            "confidence_threshold": found.confidence.threshold,
        }
    )
    title = f"{split} · temperature {temperature:.2f} · error {found.error_before:.3f} before"
    with run.artifacts() as folder:
        (folder / FOLDER).mkdir()
        figure = reliability_figure(found.y_prob, found.y_true, title)
        figure.savefig(folder / FOLDER / f"calibration_{split}.png")
