"""The untouched ImageNet classifiers, top and all: a thousand names, and no nut but the acorn."""

import os
from pathlib import Path

import keras
import numpy as np

from nutclf.errors import UserError
from nutclf.model.backbones import BackboneSpec, fetch_from_keras, load_weights_file
from nutclf.model.prefix import BATCH_SIZE, pixels_to_cut

_NAMES = Path(__file__).parent / "imagenet_classes.txt"


class NoClassifier(UserError):
    """The network with its thousand-class top cannot be had here."""


def class_names() -> list[str]:
    """The 1000 names of ILSVRC 2012, by index; "crane" and "maillot" each name two classes."""
    return _NAMES.read_text(encoding="utf-8").splitlines()


def classifier_file(spec: BackboneSpec) -> str:
    """Name of the weights file of the network with its top."""
    return spec.weights_file.replace("_no_top", "")


def load_classifier(spec: BackboneSpec) -> keras.Model:
    """The whole network of `keras.applications`: scaled float32 [B, S, S, 3] to [B, 1000].

    Its weights come from the folder `NUTCLF_WEIGHTS`, or else from Keras' cache and download.

    Raises:
      NoClassifier: its weights cannot be had.
      UserError: the file in that folder holds something else.
    """
    folder, name = os.environ.get("NUTCLF_WEIGHTS"), classifier_file(spec)
    what = f"1000-class {spec.application}"
    if folder and (file := Path(folder) / name).is_file():
        model = spec.build(include_top=True)
        load_weights_file(model, file, what)
        return model
    try:
        return fetch_from_keras(lambda: spec.build(include_top=True, weights="imagenet", name=None))
    except OSError as error:
        beside = f" and {folder} holds no {name}" if folder else ""
        raise NoClassifier(
            f"Keras could not fetch the {what} ({error}){beside}; connect to the internet, or put "
            f"{name} into NUTCLF_WEIGHTS."
        ) from error


def classify(spec: BackboneSpec, classifier: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The most probable ImageNet class of each image, int64 [N], of uint8 RGB [N, S, S, 3]."""
    run = pixels_to_cut(spec, classifier, len(classifier.layers) - 1)
    starts = range(0, len(pixels), BATCH_SIZE)
    return np.concatenate([run(pixels[i : i + BATCH_SIZE]).argmax(axis=1) for i in starts])
