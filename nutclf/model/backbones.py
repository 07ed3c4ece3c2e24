"""The pretrained networks: how each is built, what it expects, where its weights come from."""

import hashlib
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from nutclf.errors import UserError

DOWNLOAD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class BackboneSpec:
    """What the project knows of one network before it is built.

    Attributes:
      name: as used in configs and records.
      application: constructor in `keras.applications`.
      image_size: side of the square input, pixels.
      scale, offset: a channel's input is `pixel * scale + offset`, for pixels 0..255.
      weights_file: file name looked for in the folder `NUTCLF_WEIGHTS`.
      shipped_file: packed weights in this package, used when no others can be had; "" for none.
    """

    name: str
    application: str
    image_size: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    weights_file: str
    shipped_file: str = ""

    def build(self, **arguments) -> keras.Model:
        """The network, by default without its top: scaled float32 [B, S, S, 3] to [B, h, w, C]."""
        defaults = {"include_top": False, "weights": None, "name": self.name}
        shape = (self.image_size, self.image_size, 3)
        build = getattr(keras.applications, self.application)
        return build(input_shape=shape, **defaults | arguments)


# keras.applications.densenet scales to 0..1, then by the ImageNet mean and deviation ("torch").
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="mobilenetv2",
            application="MobileNetV2",
            image_size=224,
            # keras.applications.mobilenet_v2 scales to -1..1 (mode "tf").
            scale=(1 / 127.5,) * 3,
            offset=(-1.0,) * 3,
            weights_file="mobilenet_v2_1.0_224_no_top.weights.h5",
            shipped_file="mobilenet_v2_1.0_224_no_top.npz",
        ),
        BackboneSpec(
            name="densenet169",
            application="DenseNet169",
            image_size=224,
            scale=tuple(1 / (255 * deviation) for deviation in _DEVIATION),
            offset=tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
            weights_file="densenet169_no_top.weights.h5",
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


def find_spec(name: str, image_size: int | None = None) -> BackboneSpec:
    """The network called `name`, at another image size than its own if one is given.

    Raises:
      UserError: the name is unknown; the message lists the known ones.
    """
    if name not in BACKBONES:
        raise UserError(f"Unknown backbone {name!r}; known are {', '.join(sorted(BACKBONES))}.")
    spec = BACKBONES[name]
    return spec if image_size is None else replace(spec, image_size=image_size)


def load_backbone(
    name: str,
    weights: str = "pretrained",
    image_size: int | None = None,
    digest: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Backbone:
    """Builds a network and fills in its weights.

    Weights are looked for in the folder `NUTCLF_WEIGHTS`, then in Keras' cache and download, then
    (MobileNetV2) in this package.

    Args:
      name: a key of `BACKBONES`.
      weights: "pretrained", or "random" for tests of the machinery: that network has seen nothing.
      image_size: side of the input, pixels; None is the network's own.
      digest: of the weights that a study was begun with; those are taken wherever they are, and
        the first ones found where they are nowhere.
      say: takes a line where the shipped weights are used.

    Raises:
      UserError: unknown name; weights that fit another network; none to be had.
    """
    spec = find_spec(name, image_size)
    if weights not in ("pretrained", "random"):
        raise UserError(f"weights is {weights!r}; allowed: pretrained, random.")
    if weights == "random":
        keras.utils.set_random_seed(0)  # the same in the driver and in each worker
        model = spec.build()
        return Backbone(spec, model, "random", weights_digest(model))
    model, failures = spec.build(), []
    for load in _SOURCES if digest is None else _SOURCES_KNOWN:
        try:
            origin = load(spec, model)
        except _NotHere as reason:
            failures.append(str(reason))
            continue
        if digest in (None, found := weights_digest(model)):
            if load is _from_package:
                say(_SHIPPED_NOTE.format("; ".join(failures) or "the study began with them"))
            return Backbone(spec, model, origin, found)
    if digest is not None:  # whoever compares digests has the sentence for it
        return load_backbone(name, weights, image_size, say=say)
    raise UserError(
        f"No weights for {spec.name}: {'; '.join(failures)}. Connect to the internet, or set "
        f"NUTCLF_WEIGHTS to a folder that holds {spec.weights_file}."
    )


class _NotHere(Exception):
    """Weights cannot be had from one source; the message says why."""


def _from_folder(spec: BackboneSpec, model: keras.Model) -> str:
    folder = os.environ.get("NUTCLF_WEIGHTS")
    if not folder:
        raise _NotHere("NUTCLF_WEIGHTS is not set")
    if not Path(folder).is_dir():
        raise UserError(
            f"NUTCLF_WEIGHTS names {folder!r}, which is not a folder; name the folder that holds "
            f"{spec.weights_file}, or unset it to let Keras download."
        )
    path = Path(folder) / spec.weights_file
    if not path.is_file():  # the folder may hold the other network only
        raise _NotHere(f"{folder} holds no {spec.weights_file}")
    load_weights_file(model, path, f"{spec.application} (no top, {spec.image_size} pixels)")
    return path.name


def load_weights_file(model: keras.Model, path: Path, what: str) -> None:
    """Fills a model from a `.weights.h5` file.

    Raises:
      UserError: the file holds something else than `what`.
    """
    try:
        with warnings.catch_warnings():
            # Keras warns once for each of a hundred layers before it raises for all of them.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"{path} does not hold the weights of {what}: {reason} Put the right file there, or "
            "unset NUTCLF_WEIGHTS."
        ) from error


def _from_keras(spec: BackboneSpec, model: keras.Model) -> str:
    try:
        # At its own size: Keras has other weights for MobileNetV2 at other sizes.
        own = BACKBONES[spec.name]
        donor = fetch_from_keras(lambda: own.build(weights="imagenet", name=None))
    except OSError as error:
        raise _NotHere(f"Keras could not fetch them ({error})") from error
    model.set_weights(donor.get_weights())
    return "keras.applications imagenet"


def fetch_from_keras(build: Callable[[], keras.Model]) -> keras.Model:
    """A model whose weights Keras takes from its cache, or downloads.

    Raises:
      OSError: it could not; the message is short.
    """
    announces = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()  # Keras would print the address
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_S):
            return build()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        # The address is long, and always the same.
        raise OSError(str(error).strip().rsplit(" -- ", 1)[-1][:200]) from error
    finally:
        if announces:
            keras.config.enable_interactive_logging()


def _from_package(spec: BackboneSpec, model: keras.Model) -> str:
    from nutclf.model.packed import load_packed

    if not spec.shipped_file:
        raise _NotHere("none are shipped with this package")
    load_packed(model, Path(__file__).parent / spec.shipped_file)
    return f"shipped {spec.shipped_file}"


_SOURCES = (_from_folder, _from_keras, _from_package)
# A study that began with the shipped weights goes on with them without a download.
_SOURCES_KNOWN = (_from_folder, _from_package, _from_keras)
_SHIPPED_NOTE = (
    "Weights: the ImageNet weights shipped with this package ({}). For Keras' own, connect to the "
    "internet, or set NUTCLF_WEIGHTS, before a study begins."
)


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Keras' download has no timeout of its own: a silent network would hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def weights_digest(model: keras.Model) -> str:
    """sha256 of all weight arrays of a model in order, hexadecimal."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(value.tobytes())
    return digest.hexdigest()
