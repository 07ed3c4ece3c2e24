"""What a verb opens: the study it is about, the images, the records."""

import dataclasses
import importlib.util
import os
from pathlib import Path

from nutclf.cli.process import say
from nutclf.errors import UserError

WORKDIR = Path(__file__).parents[2]
FEATURES = WORKDIR / ".cache" / "features"
_FEATURE_BUDGET_BYTES = int(20e9)


def open_study_on_data(study: str, name: str, data: str, objective: str):
    """The study of experiments/ as it runs on the data that were found, and those data."""
    from nutclf.search.session import for_data, with_objective

    config = load_study(study, name)  # a misspelt name is told before any data are fetched
    source = find_data(data)
    return with_objective(for_data(config, source.kind), objective), source


def load_study(study: str, name: str):
    """The `STUDY` of experiments/<study>.py, under another name if one is given."""
    folder = WORKDIR / "experiments"
    known = sorted(path.stem for path in folder.glob("*.py"))
    if study not in known:
        raise UserError(f"Unknown study {study!r}; experiments/ has {', '.join(known)}.")
    spec = importlib.util.spec_from_file_location(f"experiments.{study}", folder / f"{study}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dataclasses.replace(module.STUDY, name=name) if name else module.STUDY


def find_data(data: str):
    """The data set, announced: drawn data in words that nobody can miss."""
    from nutclf.data.source import resolve

    source = resolve(data, environ=os.environ, workdir=WORKDIR)
    if source.kind == "drawn":
        say("=" * 100)
    say(source.origin)
    if source.kind == "drawn":
        say(
            "For photographs: make sweep DATA=folder, a folder with train/ valid/ test/ of classes."
        )
        say("=" * 100)
    for note in source.folder.notes:
        say(f"note: {note}")
    return source


def splits_of(source):
    """Reads the data set's splits, for those that ask for them one by one."""
    from nutclf.data.folder import read_split
    from nutclf.track.reload import Split

    def load_split(split: str, size: int) -> Split:
        loaded = read_split(source.folder, split, size)
        return Split(loaded.images, loaded.labels, loaded.paths)

    return load_split


def open_store(folder: str):
    """The addresses of the records."""
    from nutclf.track.store import Store

    return Store.at(WORKDIR / Path(folder).expanduser(), os.environ)


def open_places(store: str):
    """Where a verb that trains reads and writes."""
    from nutclf.search.places import Places

    return Places(open_store(store), FEATURES, _FEATURE_BUDGET_BYTES)
