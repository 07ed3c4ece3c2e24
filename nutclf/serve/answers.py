"""The champion's answers to files of photographs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from nutclf.data.folder import bad_link, is_image, is_litter
from nutclf.data.reader import UnreadableImage
from nutclf.errors import UserError
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.mistakes import spotlight
from nutclf.model.gradcam import grad_cam
from nutclf.model.network import predict, without_probe
from nutclf.serve.photographs import Recognised, Recogniser
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_familiarity, load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.runs import Run
from nutclf.track.store import Store

UI = "http://127.0.0.1:5000"  # where `make ui` shows the records of a store on this machine


def champion_uri(store: Store, name: str) -> str:
    """Address of the champion of registered model `name`. Raises `UserError` when it has none."""
    if Registry(store.prepare().client(), name).at(CHAMPION) is None:
        raise UserError(
            f"{name!r} has no champion in {store.tracking_uri}; run `make sweep` first (or `make "
            "promote`, if one ended), or name the store with STORE= and the model with MODEL=."
        )
    return f"models:/{name}@{CHAMPION}"


@dataclass(frozen=True)
class Champion:
    """A registered version, open: what it answers with, and what is known of it."""

    version: int
    recogniser: Recogniser
    network: keras.Model  # of one view, squares to probabilities, without a probe beside it
    facts: Mapping[str, object]  # JSON-able, for people
    paths: frozenset[str]  # of training images that an answer may name

    def heat(self, pixels: np.ndarray) -> np.ndarray:
        """Where it looked for the most probable class: a photograph lit by Grad-CAM, [S, S, 3]."""
        ids = predict(self.network, pixels[None]).argmax(axis=1)
        return spotlight(pixels, grad_cam(self.network, pixels[None], ids)[0])


def open_champion(store: Store, name: str) -> Champion:
    """Opens the champion in safe mode. Raises `UserError`: there is none, or not what was saved."""
    champion_uri(store, name)
    version = Registry(store.client(), name).at(CHAMPION)
    uri = f"models:/{name}/{version.version}"
    model, metadata = load_model(store, uri), load_metadata(store, uri)
    known = load_familiarity(store, uri)
    run = Run(store.client(), version.run_id)
    test = stored_predictions(run, "test")
    server = store.tracking_uri if store.tracking_uri.startswith("http") else UI
    where = f"#/experiments/{run.study[0]}/runs/{run.run_id}"
    facts = {
        "name": name,
        "version": int(version.version),
        "study": run.study[1],
        "classes": metadata["classes"],
        "test_accuracy": None if test is None else str(_rate(test)),
        "run": f"{server.rstrip('/')}/{where}",
        "tells_unfamiliar": known is not None,
    }
    recogniser = Recogniser(model, metadata, known)
    paths = frozenset(known.paths if known else ())
    return Champion(int(version.version), recogniser, without_probe(model), facts, paths)


def newer_champion(store: Store, name: str, present: Champion) -> Champion | None:
    """The champion, if it is another version than the present one and has answered already."""
    version = Registry(store.client(), name).at(CHAMPION)
    if version is None or int(version.version) == present.version:
        return None
    found = open_champion(store, name)
    found.recogniser.warm_up()
    return found


def _rate(table: pd.DataFrame) -> Rate:
    return Rate(int((table["y_true"] == table["y_pred"]).sum()), len(table))


@dataclass(frozen=True)
class Answer:
    """What the model says of one file: an answer, or the error that kept it from being read."""

    path: Path
    found: Recognised | None
    error: str | None = None

    def line(self) -> str:
        said = self.found.line() if self.found else f"cannot be read, {self.error}"
        return f"{self.path}: {said}"


def answer_files(store: Store, name: str, paths: Sequence[Path]) -> Iterator[Answer]:
    """Answers of the champion of registered model `name` to files, and to all images in folders.

    Raises `UserError`: a path that is not there, a folder without images, or no champion.
    """
    files = [pair for path in paths for pair in _expand(path)]
    champion = open_champion(store, name).recogniser
    for file, left_out in files:
        try:
            if left_out:
                raise UnreadableImage(left_out)
            pixels = champion.read(file)
        except UnreadableImage as error:
            yield Answer(file, None, str(error))
        else:
            yield Answer(file, champion.recognise(pixels[None])[0])


def _expand(path: Path) -> list[tuple[Path, str | None]]:
    """The files of a path, and why one is not read: a link in a folder may not lead out of it."""
    if path.is_dir():
        root = path.resolve()
        found = (f for f in path.rglob("*") if not any(map(is_litter, f.relative_to(path).parts)))
        files = sorted(file for file in found if is_image(file))
        if not files:
            raise UserError(f"The folder {str(path)!r} holds no images.")
        return [(file, bad_link(root, file) if file.is_symlink() else None) for file in files]
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r}; give photographs or folders of them.")
    return [(path, None)]
