"""A model opened again from the records, and the proof that it is the one that was saved."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import predict_pixels
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata, load_model
from nutclf.track.runs import Run
from nutclf.track.store import Store

RELOAD_TOLERANCE = 1e-6  # in probability, between the model that was logged and the one reloaded


@dataclass(frozen=True)
class Split:
    """Images of one split at the size that a model takes.

    Attributes:
      pixels: uint8 [N, S, S, 3].
      labels: int64 [N].
      paths: N paths, relative to the data set's folder.
    """

    pixels: np.ndarray
    labels: np.ndarray
    paths: list[str]


LoadSplit = Callable[[str, int], Split]
"""Reads a split ("valid", "test") at an image size."""


@dataclass(frozen=True)
class Reloaded:
    """A model from the records.

    Attributes:
      model: raw pixels in.
      classes: in the model's order, read from its metadata.
      image_size: side of the images that it was trained on.
      valid: its predictions of today's valid split, whatever data it was trained on.
    """

    model: keras.Model
    classes: list[str]
    image_size: int
    valid: pd.DataFrame

    def predict(self, images: Split) -> pd.DataFrame:
        """The table of its predictions; one pass."""
        return _predictions(self.model, images, self.classes)


def reload(store: Store, uri: str, load_split: LoadSplit) -> Reloaded:
    """Opens a model and predicts the valid split."""
    metadata, model = load_metadata(store, uri), load_model(store, uri)
    classes, size = metadata["classes"], metadata["image_size"]
    return Reloaded(model, classes, size, _predictions(model, load_split("valid", size), classes))


def reload_proved(store: Store, uri: str, run: Run, load_split: LoadSplit) -> Reloaded:
    """Opens a model and holds its probabilities against those that its run recorded.

    On the valid split, whose predictions were recorded before the model was saved. Before anything
    is decided: a model that is not what it was must not see the test split either.

    Raises:
      RuntimeError: a probability differs by more than `RELOAD_TOLERANCE`.
    """
    reloaded = reload(store, uri, load_split)
    again, recorded = (
        table.set_index("path") for table in (reloaded.valid, stored_predictions(run, "valid"))
    )
    classes = reloaded.classes
    gap = np.abs(again.loc[recorded.index, classes] - recorded[classes]).to_numpy().max()
    if not gap <= RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{uri} of run {run.run_id} was reloaded and differs by {gap:.2g} in probability from "
            "what the run recorded; its files are not those that were saved, and it stays out"
        )
    return reloaded


def _predictions(model: keras.Model, images: Split, classes: list[str]) -> pd.DataFrame:
    y_prob = predict_pixels(model, images.pixels)
    return prediction_table(images.paths, images.labels, y_prob, classes)
