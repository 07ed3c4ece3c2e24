"""The pretrained networks: how each is built, what it expects, where its weights come from."""

import hashlib
import inspect
import os
import socket
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from nutclf.errors import UserError


@dataclass(frozen=True)
class BackboneSpec:
    """What the project knows of one network before it is built."""

    name: str  # in configs and records
    application: str  # its constructor in `keras.applications`
    image_size: int  # side of the square input, pixels
    scale: tuple[float, ...]  # a channel's input is `pixel * scale + offset`, for pixels 0..255
    offset: tuple[float, ...]
    weights_file: str  # in the folder `NUTCLF_WEIGHTS`; as .npz it may be shipped beside this file
    bgr: bool = False  # whether it takes blue first, as networks that came from Caffe do

    def build(self, **arguments) -> keras.Model:
        """The network, by default without its top: scaled float32 [B, S, S, 3] to [B, h, w, C]."""
        # Without a name: some constructors look their own up in a table.
        shape = (self.image_size, self.image_size, 3)
        defaults = {"include_top": False, "weights": None, "input_shape": shape}
        return getattr(keras.applications, self.application)(**defaults | arguments)


# keras.applications scales MobileNetV2's input to -1..1 (mode "tf"), and DenseNet's to 0..1, then
# by the ImageNet mean and deviation ("torch").
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES = {
    "mobilenetv2": BackboneSpec(
        name="mobilenetv2",
        application="MobileNetV2",
        image_size=224,
        scale=(1 / 127.5,) * 3,
        offset=(-1.0,) * 3,
        weights_file="mobilenet_v2_1.0_224_no_top.weights.h5",
    ),
    "densenet169": BackboneSpec(
        name="densenet169",
        application="DenseNet169",
        image_size=224,
        scale=tuple(1 / (255 * deviation) for deviation in _DEVIATION),
        offset=tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
        weights_file="densenet169_no_top.weights.h5",
    ),
}


@dataclass(frozen=True)
class Backbone:
    """A built network with its weights, and where those came from."""

    spec: BackboneSpec
    model: keras.Model  # scaled float32 [B, S, S, 3] to features; its weights are never changed
    origin: str  # of the weights, for the records: e.g. their file name
    digest: str  # see `weights_digest`


class NoWeights(UserError):
    """Weights cannot be had here, or from one source; the message says why."""


_SIZES = {  # of the input, where it is not 224 pixels: the default of each constructor
    "efficientnetb1": 240, "efficientnetb2": 260, "efficientnetb3": 300, "efficientnetb4": 380,
    "efficientnetb5": 456, "efficientnetb6": 528, "efficientnetb7": 600, "efficientnetv2b1": 240,
    "efficientnetv2b2": 260, "efficientnetv2b3": 300, "efficientnetv2s": 384,
    "efficientnetv2m": 480, "efficientnetv2l": 480, "inceptionv3": 299, "inceptionresnetv2": 299,
    "nasnetlarge": 331, "xception": 299,
}  # fmt: skip


def find_spec(name: str, image_size: int | None = None) -> BackboneSpec:
    """The network called `name`, at its own image size or another; `UserError` if unknown.

    Any of `keras.applications`, in lower case: how it wants its pixels is read off what Keras does
    to black, to white and to red ones. Some do nothing there, as they scale inside.
    """
    if name in BACKBONES:
        return replace(BACKBONES[name], image_size=image_size or BACKBONES[name].image_size)
    known = {each.lower(): each for each in dir(keras.applications) if each[0].isupper()}
    if name not in known:
        listed = ", ".join(sorted(known))
        raise UserError(f"Unknown backbone {name!r}; keras.applications has {listed}.")
    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, known[name])))
    pixels = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.float32)
    black, white, red = module.preprocess_input(pixels.reshape(1, 3, 1, 3).copy())[0, :, 0]
    return BackboneSpec(
        name=name,
        application=known[name],
        image_size=image_size or _SIZES.get(name, 224),
        scale=tuple(((white - black) / 255).tolist()),
        offset=tuple(black.tolist()),
        weights_file=f"{name}_no_top.weights.h5",
        bgr=bool(red[2] > black[2]),
    )


def load_backbone(
    name: str,
    weights: str = "pretrained",
    image_size: int | None = None,
    digest: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Backbone:
    """Builds a network and fills in its weights, or "random" ones for tests of the machinery.

    They are looked for in the folder `NUTCLF_WEIGHTS`, then in Keras' cache and download, then
    (MobileNetV2) in this package. Those with the `digest` that a study began with are taken
    wherever they are; where they are nowhere, the first ones found.

    Raises:
      UserError: unknown name; weights that fit another network; none to be had.
    """
    spec = find_spec(name, image_size)
    if weights not in ("pretrained", "random"):
        raise UserError(f"weights is {weights!r}; allowed: pretrained, random.")
    if weights == "random":
        keras.utils.set_random_seed(0)  # the same in the driver and in each worker
        model = _built(spec)
        return Backbone(spec, model, weights, weights_digest(model))
    model, failures = _built(spec), []
    sources = [_from_folder, _from_keras, from_package]
    if digest is not None:  # a study that began with the shipped weights needs no download
        sources = [_from_folder, from_package, _from_keras]
    for load in sources:
        try:
            origin = load(spec, model)
        except NoWeights as reason:
            failures.append(str(reason))
            continue
        if digest in (None, found := weights_digest(model)):
            if load is from_package:
                say(
                    "Weights: the ImageNet weights shipped with this package "
                    f"({'; '.join(failures) or 'the study began with them'}). For Keras' own, "
                    "connect to the internet, or set NUTCLF_WEIGHTS, before a study begins."
                )
            return Backbone(spec, model, origin, found)
    if digest is not None:  # whoever compares digests has the sentence for it
        return load_backbone(name, weights, image_size, say=say)
    raise UserError(
        f"No weights for {spec.name}: {'; '.join(failures)}. Connect to the internet, or set "
        f"NUTCLF_WEIGHTS to a folder that holds {spec.weights_file}."
    )


def _built(spec: BackboneSpec) -> keras.Model:
    try:
        return spec.build()
    except ValueError as error:  # an input that is smaller than the network can halve
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"{spec.name} cannot be built for images of {spec.image_size} pixels ({reason}); "
            f"give the study another image_size, or None for its own."
        ) from error


def load_classifier(spec: BackboneSpec) -> keras.Model:
    """A network with its ImageNet top: scaled float32 [B, S, S, 3] to [B, 1000], or `NoWeights`."""
    folder, name = os.environ.get("NUTCLF_WEIGHTS"), spec.weights_file.replace("_no_top", "")
    what = f"1000-class {spec.application}"
    if folder and (file := Path(folder) / name).is_file():
        return _load_weights_file(spec.build(include_top=True), file, what)
    try:
        return fetch_from_keras(spec, f"the {what}", include_top=True)
    except NoWeights as error:
        beside = f" and {folder} holds no {name}" if folder else ""
        raise NoWeights(
            f"{error}{beside}; connect to the internet, or put {name} into NUTCLF_WEIGHTS."
        ) from error


def _from_folder(spec: BackboneSpec, model: keras.Model) -> str:
    folder = os.environ.get("NUTCLF_WEIGHTS")
    if not folder:
        raise NoWeights("NUTCLF_WEIGHTS is not set")
    if not Path(folder).is_dir():
        raise UserError(
            f"NUTCLF_WEIGHTS names {folder!r}, which is not a folder; name the folder that holds "
            f"{spec.weights_file}, or unset it to let Keras download."
        )
    path = Path(folder) / spec.weights_file
    if not path.is_file():  # the folder may hold the other network only
        raise NoWeights(f"{folder} holds no {spec.weights_file}")
    _load_weights_file(model, path, f"{spec.application} (no top, {spec.image_size} pixels)")
    return path.name


def _load_weights_file(model: keras.Model, path: Path, what: str) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # Keras warns once for each of a hundred layers before it raises for all of them.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
        return model
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{path} does not hold the weights of {what}: {reason} Put the right file there, or "
            "unset NUTCLF_WEIGHTS."
        ) from error


def _from_keras(spec: BackboneSpec, model: keras.Model) -> str:
    # At its own size: Keras has other weights for MobileNetV2 at other sizes.
    donor = fetch_from_keras(find_spec(spec.name), "them")
    model.set_weights(donor.get_weights())
    return "keras.applications imagenet"


def fetch_from_keras(spec: BackboneSpec, what: str, **arguments) -> keras.Model:
    """The network with weights that Keras takes from its cache, or downloads; else `NoWeights`."""
    announces, timeout = keras.config.is_interactive_logging_enabled(), socket.getdefaulttimeout()
    keras.config.disable_interactive_logging()  # Keras would print the address
    socket.setdefaulttimeout(20)  # seconds; Keras sets none and might wait for ever
    try:
        return spec.build(weights="imagenet", **arguments)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = str(error).strip().rsplit(" -- ", 1)[-1][:200]  # without the long address
        raise NoWeights(f"Keras could not fetch {what} ({reason})") from error
    finally:
        socket.setdefaulttimeout(timeout)
        if announces:
            keras.config.enable_interactive_logging()


def from_package(spec: BackboneSpec, model: keras.Model) -> str:
    """Fills `model` with the weights shipped beside this file; the origin for the records."""
    file = Path(__file__).with_name(spec.weights_file.replace(".weights.h5", ".npz"))
    if not file.is_file():
        raise NoWeights("none are shipped with this package")
    load_packed(model, file)
    return f"shipped {file.name}"


def load_packed(model: keras.Model, path: Path) -> None:
    """Fills `model` from an .npz file of arrays by weight path, exact to the bit.

    An array of at most 256 different values, as in Google's 8-bit MobileNetV2, is packed as a
    `.palette` of them and `.indices`, one byte a number. A file that is missing, damaged or of
    another network is a `UserError` and leaves `model` unchanged.
    """
    try:
        # Opened here: on a damaged file, `np.load` would leave its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values = [
                arrays[weight.path]
                if weight.path in arrays
                else arrays[weight.path + ".palette"][arrays[weight.path + ".indices"]]
                for weight in model.weights
            ]
        for weight, value in zip(model.weights, values, strict=True):
            if tuple(weight.shape) != value.shape:
                raise ValueError(f"{weight.path} has shape {value.shape}")
    except (OSError, EOFError, BadZipFile, zlib.error, ValueError, LookupError, TypeError) as error:
        reason = str(error).strip().strip("'\"")[:200]
        raise UserError(
            f"{path} does not hold the packed weights of this network ({reason}); fetch the file "
            "again from the repository."
        ) from error
    model.set_weights(values)


def weights_digest(model: keras.Model) -> str:
    """sha256 of all weight arrays of a model in order, hexadecimal."""
    return hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest()
