"""The champion's answers to files of photographs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nutclf.data.folder import IMAGE_EXTENSIONS, bad_link, is_litter
from nutclf.data.reader import UnreadableImage
from nutclf.errors import UserError
from nutclf.serve.photographs import Recognised, Recogniser
from nutclf.track.models import load_metadata, load_model
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.store import Store


def champion_uri(store: Store, name: str) -> str:
    """Address of the champion of registered model `name`. Raises `UserError` when it has none."""
    if Registry(store.prepare().client(), name).at(CHAMPION) is None:
        raise UserError(
            f"{name!r} has no champion in {store.tracking_uri}; run `make sweep` first, or name "
            "the store with STORE= and the model with MODEL=."
        )
    return f"models:/{name}@{CHAMPION}"


def open_champion(store: Store, name: str) -> Recogniser:
    """Its network, opened in safe mode. Raises `UserError`: none, or not what was saved."""
    uri = champion_uri(store, name)
    return Recogniser(load_model(store, uri), load_metadata(store, uri))


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
    champion = open_champion(store, name)
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
        found = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS)
        files = sorted(f for f in found if not any(map(is_litter, f.relative_to(path).parts)))
        if not files:
            raise UserError(f"The folder {str(path)!r} holds no images.")
        return [(file, bad_link(root, file) if file.is_symlink() else None) for file in files]
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r}; give photographs or folders of them.")
    return [(path, None)]
