"""The untouched ImageNet classifiers, top and all: a thousand names, and no nut but the acorn."""

import os
import warnings
from pathlib import Path

import keras
import numpy as np

from nutclf.errors import UserError
from nutclf.model.backbones import DOWNLOAD_TIMEOUT_S, BackboneSpec, socket_timeout
from nutclf.model.prefix import BATCH_SIZE, pixels_to_cut

N_CLASSES = 1000
_NAMES = Path(__file__).parent / "imagenet_classes.txt"


class NoClassifier(UserError):
    """The network with its thousand-class top is not to be had here."""


def class_names() -> list[str]:
    """The 1000 names of ILSVRC 2012, by index; "crane" and "maillot" each name two classes."""
    return _NAMES.read_text(encoding="utf-8").splitlines()


def load_classifier(spec: BackboneSpec) -> keras.Model:
    """The whole network of `keras.applications`: scaled float32 [B, S, S, 3] to [B, 1000].

    Its weights come from the folder `NUTCLF_WEIGHTS`, from the file named as the backbone's without
    `_no_top`; else from Keras' own cache and download.

    Raises:
      NoClassifier: there is no such network, or its weights are not to be had.
      UserError: the file there holds something else.
    """
    if spec.shipped:
        raise NoClassifier(f"{spec.name} was pretrained on drawings and knows no ImageNet class.")
    folder, name = os.environ.get("NUTCLF_WEIGHTS") or None, classifier_file(spec)
    if folder is None or not (Path(folder) / name).is_file():
        return _from_keras(spec, f" and {folder} holds no {name}" if folder else "")
    model = _build(spec, None)
    try:
        with warnings.catch_warnings():
            # As in `backbones`: one warning a layer, before the error that says it all.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(Path(folder) / name)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{Path(folder) / name} does not hold the weights of {spec.application} with its "
            f"{N_CLASSES}-class top: {reason} Put the right file there, or remove it."
        ) from error
    return model


def classifier_file(spec: BackboneSpec) -> str:
    """Name of the weights file of the network with its top."""
    return spec.weights_file.replace("_no_top", "")


def classify(spec: BackboneSpec, classifier: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The most probable ImageNet class of each image, int64 [N].

    Args:
      spec: of the network; it says how pixels are scaled.
      classifier: from `load_classifier`.
      pixels: uint8 RGB [N, S, S, 3].
    """
    run = pixels_to_cut(spec, classifier, len(classifier.layers) - 1)
    starts = range(0, len(pixels), BATCH_SIZE)
    return np.concatenate([run(pixels[i : i + BATCH_SIZE]).argmax(axis=1) for i in starts])


def _build(spec: BackboneSpec, weights: str | None) -> keras.Model:
    return getattr(keras.applications, spec.application)(
        include_top=True, weights=weights, input_shape=(spec.image_size, spec.image_size, 3)
    )


def _from_keras(spec: BackboneSpec, beside: str) -> keras.Model:
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_S):
            return _build(spec, "imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = str(error).strip().rsplit(" -- ", 1)[-1][:200]
        raise NoClassifier(
            f"Keras could not fetch the {N_CLASSES}-class {spec.application} ({reason}){beside}; "
            f"connect to the internet, or put {classifier_file(spec)} into NUTCLF_WEIGHTS."
        ) from error
