"""The champion's answers to photographs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutclf.data.listing import IMAGE_EXTENSIONS, bad_link, is_litter
from nutclf.data.reader import UnreadableImage, read_image
from nutclf.errors import UserError
from nutclf.model.network import predict_pixels
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.store import Store


@dataclass(frozen=True)
class Answer:
    """What the model says of one photograph.

    Attributes:
      path: of the file.
      probabilities: by class name, in the model's order; empty when the file could not be read.
      error: why not, or None.
    """

    path: Path
    probabilities: dict[str, float]
    error: str | None = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.get)

    def line(self) -> str:
        """For a terminal: the label, its probability, then the runners-up."""
        if self.error is not None:
            return f"{self.path}: cannot be read, {self.error}"
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return f"{self.path}: " + ", ".join(f"{name} {value:.3f}" for name, value in ranked[:3])


def answer_files(store: Store, name: str, paths: Sequence[Path]) -> Iterator[Answer]:
    """Answers of the champion of registered model `name` to files, and to all images in folders.

    Raises:
      UserError: a path that is not there, a folder without images, or no champion.
    """
    files = [pair for path in paths for pair in _expand(path)]
    if Registry(store.prepare().client(), name).at(CHAMPION) is None:
        raise UserError(
            f"{name!r} has no champion in {store.tracking_uri}; run `make sweep` first, or name "
            "the store with STORE= and the model with MODEL=."
        )
    address = f"models:/{name}@{CHAMPION}"
    model, metadata = load_model(store, address), load_metadata(store, address)
    for file, left_out in files:
        if left_out:
            yield Answer(file, {}, left_out)
            continue
        try:
            pixels = read_image(file, metadata["image_size"])
        except UnreadableImage as error:
            yield Answer(file, {}, str(error))
            continue
        values = predict_pixels(model, pixels[np.newaxis])[0].tolist()
        yield Answer(file, dict(zip(metadata["classes"], values, strict=True)))


def _expand(path: Path) -> list[tuple[Path, str | None]]:
    """The files of a path, and why one is not read: a link in a folder may not lead out of it."""
    if path.is_dir():
        root = path.resolve()
        found = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS)
        files = sorted(f for f in found if not any(map(is_litter, f.relative_to(path).parts)))
        if not files:
            raise UserError(f"The folder {str(path)!r} holds no images.")
        return [(file, bad_link(root, file) if file.is_symlink() else None) for file in files]
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r}; give photographs or folders of them.")
    return [(path, None)]
