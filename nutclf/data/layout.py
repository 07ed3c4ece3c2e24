"""The shape that a data set must have on disk: three splits, and classes that train defines."""

from collections.abc import Mapping
from pathlib import Path

from nutclf.config import SPLITS
from nutclf.data.listing import Notes, entries, quote
from nutclf.errors import UserError


def checked_root(root: Path) -> Path:
    """The folder, absolute with links resolved. Raises `UserError` unless it has every split."""
    layout = "train/, valid/ and test/, each with one folder of images a class"
    if not root.is_dir():
        state = "no folder" if root.exists() else "missing"
        raise UserError(f"The data folder {quote(str(root))} is {state}; give one with {layout}.")
    here = {entry.name: entry for entry in entries(root)}
    links = [name for name in SPLITS if name in here and here[name].is_symlink()]
    lacking = [name for name in SPLITS if name not in here or not here[name].is_dir()]
    if lacking or links:
        found = _names(list(here)[:12]) or "nothing"
        raise UserError(
            f"The data folder {quote(str(root))} must hold {layout}. Found: {found}. "
            + (f"Not there, or no folder: {', '.join(lacking)}. " if lacking else "")
            + (f"Links, which are not followed: {', '.join(links)}. " if links else "")
            + "Rename or move your folders so."
        )
    return root.resolve()


def agree(counts: Mapping[str, Mapping[str, int]], notes: Notes) -> tuple[str, ...]:
    """The class names in the order of their indices, after all splits were held against train.

    Args:
      counts: split -> class folder -> number of image files in it; the three splits of config.
      notes: gets a line for each class that one of valid and test lacks.

    Returns:
      Class folders of train, sorted by name.

    Raises:
      UserError: a class of train is empty or has no counterpart, another split adds a class, a
        split is empty, or there are fewer than two classes.
    """
    classes = tuple(sorted(counts["train"]))
    _check_train(counts["train"])
    for split in ("valid", "test"):
        _check_against_train(split, counts[split], classes, notes)
    _check_counterparts(classes, counts, notes)
    return classes


def _names(names: list[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _check_train(train: Mapping[str, int]) -> None:
    if empty := sorted(name for name, count in train.items() if not count):
        raise UserError(
            f"train/ has class folders without an image: {_names(empty)}. Every class needs images "
            f"to learn from; fill these folders or remove them from every split."
        )
    if len(train) < 2:
        raise UserError(
            f"train/ has {len(train)} class folders ({_names(sorted(train)) or 'none'}); at least "
            f"two are needed, one folder of images a class: train/<class>/<image>."
        )


def _check_against_train(
    split: str, counts: Mapping[str, int], classes: tuple[str, ...], notes: Notes
) -> None:
    added = sorted(set(counts) - set(classes))
    if filled := [name for name in added if counts[name]]:
        raise UserError(
            f"{split}/ has classes that train/ lacks: {_names(filled)}; train/ has "
            f"{_names(list(classes))}. Rename the folders to match, or give train/ such images."
        )
    notes.lines.extend(f"{split}/{quote(name)} ignored: it holds no image" for name in added)
    if not any(counts.values()):
        raise UserError(f"{split}/ holds no image in any class folder; put {split} images there.")


def _check_counterparts(
    classes: tuple[str, ...], counts: Mapping[str, Mapping[str, int]], notes: Notes
) -> None:
    lacking = {
        split: [name for name in classes if not counts[split].get(name)]
        for split in ("valid", "test")
    }
    if alone := sorted(set(lacking["valid"]) & set(lacking["test"])):
        raise UserError(
            f"Classes present in train/ only: {_names(alone)}. Give valid/ or test/ images of "
            f"them, or remove them from train/."
        )
    for split, names in lacking.items():
        if names:
            notes.lines.append(f"{split}/ has no image of {_names(names)}; no score covers them")
