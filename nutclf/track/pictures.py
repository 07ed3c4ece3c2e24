"""Pictures of a model's answers, written into its run: the worst mistakes, and where it looked."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from nutclf.data.reader import read_image
from nutclf.evaluate.mistakes import surest_hits, worst_mistakes
from nutclf.model.gradcam import grad_cam
from nutclf.model.network import without_probe
from nutclf.track.evaluation import FOLDER, stored_file, stored_predictions
from nutclf.track.models import load_metadata, load_model
from nutclf.track.runs import Run, write_json
from nutclf.track.store import Store

MISTAKES, GRADCAM = "mistakes.png", "gradcam.png"
SHOWN_MISTAKES, SHOWN_ANSWERS = 24, 6  # of wrong and of right answers each
_TILE_SIDE = 224  # pixels of a picture on a sheet


def record_mistakes(run: Run, split: str, root: Path) -> None:
    """Draws `evaluation/mistakes.png` of the predictions of a split, unless the run has it.

    `root` is the folder of the data set.
    """
    from nutclf.evaluate.contact_sheet import mistakes_sheet

    table = stored_predictions(run, split)
    if table is None or _has(run, MISTAKES):
        return
    n_wrong = int((table["y_true"] != table["y_pred"]).sum())
    worst = worst_mistakes(table, SHOWN_MISTAKES)
    shown = [(answer, read_image(root / answer.path, _TILE_SIDE)) for answer in worst]
    detail = f"{n_wrong} of {len(table)} answers are wrong"
    detail += f"; the {len(shown)} most confident" if len(shown) < n_wrong else ""
    figure = mistakes_sheet(shown, f"Worst mistakes · {split}", detail)
    run.picture(figure, f"{FOLDER}/{MISTAKES}")


def record_gradcam(store: Store, run: Run, uri: str, root: Path) -> None:
    """Draws `evaluation/gradcam.png` and keeps its maps in `gradcam.json`, unless the run has it.

    Of the valid split: the model did not learn from it, and the test split is sealed. `uri` is the
    model's, `root` the folder of the data set.
    """
    from nutclf.evaluate.contact_sheet import gradcam_sheet

    table = stored_predictions(run, "valid")
    if table is None or _has(run, GRADCAM):
        return
    metadata = load_metadata(store, uri)
    asked = worst_mistakes(table, SHOWN_ANSWERS) + surest_hits(table, SHOWN_ANSWERS)
    pixels = np.stack([read_image(root / a.path, metadata["image_size"]) for a in asked])
    ids = np.array([metadata["classes"].index(answer.y_pred) for answer in asked])
    heat = grad_cam(without_probe(load_model(store, uri)), pixels, ids)
    shown = list(zip(asked, pixels, heat, strict=True))
    maps = [asdict(a) | {"heat": np.round(each.astype(float), 3).tolist()} for a, _, each in shown]
    title, detail = "Where the network looked · valid", "Grad-CAM of the class that was answered"
    with run.artifacts() as folder:
        write_json(folder / FOLDER / "gradcam.json", maps)
    run.picture(gradcam_sheet(shown, title, detail), f"{FOLDER}/{GRADCAM}")


def _has(run: Run, name: str) -> bool:
    with stored_file(run, name) as file:
        return file is not None
