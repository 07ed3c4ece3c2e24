"""The pretrained networks: how each is built, what it expects, where its weights come from."""

import hashlib
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras

from nutclf.errors import UserError

_SHIPPED = Path(__file__).parent
DOWNLOAD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class BackboneSpec:
    """What the project knows of one network before it is built.

    Attributes:
      name: as used in configs and records.
      application: constructor in `keras.applications`.
      alpha: MobileNetV2's width multiplier; 1.0 for networks without one.
      image_size: side of the square input, pixels.
      feature_width: channels of the output.
      scale, offset: a channel's input is `pixel * scale + offset`, for pixels 0..255.
      weights_file: file name looked for in the folder `NUTCLF_WEIGHTS`.
      shipped: whether that file is part of this package.
    """

    name: str
    application: str
    alpha: float
    image_size: int
    feature_width: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    weights_file: str
    shipped: bool = False

    def build(self) -> keras.Model:
        """The network without its top: scaled float32 [B, S, S, 3] to features [B, h, w, C]."""
        width = {} if self.alpha == 1.0 else {"alpha": self.alpha}
        return getattr(keras.applications, self.application)(
            include_top=False,
            weights=None,
            input_shape=(self.image_size, self.image_size, 3),
            name=self.name,
            **width,
        )


# keras.applications.densenet scales to 0..1, then by the ImageNet mean and deviation ("torch").
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# keras.applications.mobilenet_v2 scales to -1..1 (mode "tf").
_MINUS_ONE_TO_ONE = {"scale": (1 / 127.5,) * 3, "offset": (-1.0,) * 3}

BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "mobilenetv2",
            "MobileNetV2",
            1.0,
            224,
            1280,
            weights_file="mobilenet_v2_1.0_224_no_top.weights.h5",
            **_MINUS_ONE_TO_ONE,
        ),
        BackboneSpec(
            "densenet169",
            "DenseNet169",
            1.0,
            224,
            1664,
            scale=tuple(1 / (255 * deviation) for deviation in _DEVIATION),
            offset=tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
            weights_file="densenet169_no_top.weights.h5",
        ),
        BackboneSpec(
            "mobilenetv2-drawn",
            "MobileNetV2",
            0.35,
            96,
            1280,
            weights_file="mobilenet_v2_0.35_96_no_top.weights.h5",
            shipped=True,
            **_MINUS_ONE_TO_ONE,
        ),
    )
}


@dataclass(frozen=True)
class Backbone:
    """A built network with its weights, and where those came from.

    Attributes:
      spec: what it is.
      model: maps scaled float32 [B, S, S, 3] to features; its weights are never changed.
      origin: one phrase for the records, e.g. the weights' file name.
      digest: sha256 of all weight arrays in order, hexadecimal.
    """

    spec: BackboneSpec
    model: keras.Model
    origin: str
    digest: str


def find_spec(name: str) -> BackboneSpec:
    """The spec called `name`; a UserError lists the known ones."""
    if name not in BACKBONES:
        raise UserError(f"Unknown backbone {name!r}; known are {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[name]


def load_backbone(name: str, weights: str = "pretrained") -> Backbone:
    """Builds a network and fills in its weights.

    Args:
      name: a key of `BACKBONES`.
      weights: "pretrained", or "random" for tests of the machinery: that network has seen nothing.

    Raises:
      UserError: unknown name; weights that fit another network; none to be had.
    """
    spec = find_spec(name)
    if weights not in ("pretrained", "random"):
        raise UserError(f"weights is {weights!r}; allowed: pretrained, random.")
    model = spec.build()
    origin = "random" if weights == "random" else _load_pretrained(spec, model)
    return Backbone(spec, model, origin, _digest(model))


def _load_pretrained(spec: BackboneSpec, model: keras.Model) -> str:
    folder = _SHIPPED if spec.shipped else os.environ.get("NUTCLF_WEIGHTS") or None
    if folder is None:
        return _load_from_keras(spec, model)
    path = Path(folder) / spec.weights_file
    if path.is_file():
        _load_file(spec, model, path)
        return path.name
    if not path.parent.is_dir():
        raise UserError(
            f"NUTCLF_WEIGHTS names {str(folder)!r}, which is not a folder; "
            f"name the folder that holds {spec.weights_file}, or unset it to let Keras download."
        )
    # The folder may hold the other network only.
    return _load_from_keras(spec, model, beside=f" and {folder} holds no {spec.weights_file}")


def _load_file(spec: BackboneSpec, model: keras.Model, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Keras warns once for each of a hundred layers before it raises for all of them.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{path} does not hold the weights of {spec.application} (alpha {spec.alpha:g}, no "
            f"top, {spec.image_size} pixels): {reason} Put the right file there, or unset "
            "NUTCLF_WEIGHTS."
        ) from error


def _load_from_keras(spec: BackboneSpec, model: keras.Model, beside: str = "") -> str:
    """Copies the ImageNet weights that Keras keeps in its cache, downloading them if need be."""
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_S):
            donor = getattr(keras.applications, spec.application)(
                include_top=False, weights="imagenet", input_shape=model.input_shape[1:]
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = str(error).strip().rsplit(" -- ", 1)[-1][:200]  # the address is long, and fixed
        raise UserError(
            f"No weights for {spec.name}: Keras could not fetch them ({reason}){beside}. Connect "
            f"to the internet, or set NUTCLF_WEIGHTS to a folder that holds {spec.weights_file}."
        ) from error
    model.set_weights(donor.get_weights())
    return "keras.applications imagenet"


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Keras' download has no timeout of its own: a silent network would hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(value.tobytes())
    return digest.hexdigest()
