"""What one machine of a cluster has of a study: found there, or written from what is sent to it."""

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock

from nutclf.errors import UserError

MAX_PARCEL_BYTES = 2**30  # images that are sent: they lie in the memory of each machine for a while
_PACKAGE = Path(__file__).parents[1]


class Lacking(Exception):
    """This machine has no images, or no weights, of the study."""


@dataclass(frozen=True)
class Parcel:
    """What a machine may lack: files of the train and valid splits by path, and weights."""

    images: dict[str, bytes]
    weights: list[np.ndarray]  # of the whole backbone, in its order


def versions() -> dict[str, str]:
    """What driver and machines must share to give the same results."""
    sources = sorted(_PACKAGE.rglob("*.py"))
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    packages = {name: version(name) for name in ("keras", "tensorflow", "numpy")}
    return {"nutclf": code, "python": platform.python_version()} | packages


def cache_folder() -> Path:
    """`NUTCLF_CACHE` of this machine: features, and what was sent; by default in the home."""
    return Path(os.environ.get("NUTCLF_CACHE") or "~/.cache/nutclf").expanduser()


def pack(setting) -> Parcel:
    """The parcel, at the driver. Raises `UserError` where the images are too many to be sent."""
    from nutclf.model.backbones import load_backbone

    config, data = setting.config, setting.data
    files = [data.root / path for path in _table(setting)["path"]]
    n_bytes = sum(file.stat().st_size for file in files)
    if n_bytes > MAX_PARCEL_BYTES:
        raise UserError(
            f"A node lacks the images, and {n_bytes / 1e9:.1f} GB are too much to send (limit "
            f"{MAX_PARCEL_BYTES / 1e9:.1f} GB); put them there and name them with NUTCLF_DATA."
        )
    backbone = load_backbone(config.backbone, setting.weights, config.image_size, setting.digest)
    images = {path.relative_to(data.root).as_posix(): path.read_bytes() for path in files}
    return Parcel(images, backbone.model.get_weights())


def at_home(setting, parcel: Parcel | None, say: Callable[[str], None]):
    """A study's setting as it is on this machine, opened: each image and the weights are checked.

    Raises `Lacking` where something has to be sent, `UserError` where what is here is not the
    study's.
    """
    from nutclf.train.feature_store import FeatureStore
    from nutclf.train.jobs import open_bench

    cache = cache_folder()
    features = FeatureStore(cache / "features", setting.features.budget_bytes)
    root = _images(setting, cache / "data" / setting.data.fingerprint[:16], parcel)
    home = replace(setting, data=replace(setting.data, root=root), features=features)
    try:
        open_bench(home, say)
    except UserError as error:
        if os.environ.get("NUTCLF_WEIGHTS"):  # others, on purpose
            raise
        if parcel is None:
            raise Lacking(str(error)) from error
        os.environ["NUTCLF_WEIGHTS"] = str(_weights(setting, cache / "weights", parcel))
        open_bench(home, say)
    return home


def _table(setting):
    return setting.data.files[setting.data.files["split"] != "test"]  # that split stays sealed


def _images(setting, received: Path, parcel: Parcel | None) -> Path:
    """The folder of images: this machine's own, the driver's where it is shared, or what came."""
    named = os.environ.get("NUTCLF_DATA")
    paths = _table(setting)["path"]
    for root in [Path(named)] if named else [setting.data.root, received]:
        if all((root / path).is_file() for path in paths):
            return root
    if named and Path(named).is_dir():
        raise UserError(f"NUTCLF_DATA is {named}, which lacks images of the study")
    if parcel is None:
        raise Lacking("no images")
    received.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(received.with_suffix(".lock")):
        if not received.exists():  # another process may have written it since
            with tempfile.TemporaryDirectory(dir=received.parent) as folder:
                whole = Path(folder) / "images"
                for path, content in parcel.images.items():
                    (whole / path).parent.mkdir(parents=True, exist_ok=True)
                    (whole / path).write_bytes(content)
                whole.rename(received)
    return received


def _weights(setting, folder: Path, parcel: Parcel) -> Path:
    """A folder as `NUTCLF_WEIGHTS` names one, with the weights that came."""
    from nutclf.model.backbones import find_spec

    spec = find_spec(setting.config.backbone, setting.config.image_size)
    folder = folder / setting.digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / spec.weights_file).exists():
            model = spec.build()
            model.set_weights(parcel.weights)
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                model.save_weights(Path(aside) / spec.weights_file)
                shutil.move(Path(aside) / spec.weights_file, folder)
    return folder
