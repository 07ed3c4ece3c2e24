"""A whole sweep against its protocol as a user would write it: every fold of every recipe.

Usage: python -m benchmarks.protocol DATA FOLDER

Sweeps the default study into an empty FOLDER, and times three epochs of `as_usual` at each of
three depths. What the usual way would take is then reckoned, not measured: each recipe of the
sweep, on five folds of four fifths of the images and once on all of them, at the seconds an epoch
of the depth next to its own. Nothing is stopped early there, nor asked under several views.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.recipes import RECIPES

N_TRIALS, EPOCHS = 20, 3
PASSES = 5 * 4 / 5 + 1  # over all images, for each epoch of a recipe


def swept(data: str, folder: Path) -> tuple[float, list[tuple[int, int]]]:
    """Seconds of a sweep, and depth and epochs of each of its recipes."""
    from nutclf.track.store import Store

    store = folder / "store"
    command = [sys.executable, "-m", "nutclf", "sweep", "--data", data, "--store", str(store)]
    environ = {**os.environ, "NUTCLF_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    with (folder / "sweep.log").open("w") as log:
        subprocess.run([*command, "--trials", str(N_TRIALS)], env=environ, stdout=log, check=True)
    seconds, client = time.perf_counter() - started, Store.at(store, {}).client()
    experiment = client.get_experiment_by_name("nutclf").experiment_id
    which = "tags.kind = 'trial' AND attributes.status != 'FAILED'"
    params = [run.data.params for run in client.search_runs([experiment], which)]
    names = "n_unfrozen", "epochs", "warmup_epochs"
    numbers = [[int(one[name]) for name in names] for one in params]
    return seconds, [(depth, epochs + warmup) for depth, epochs, warmup in numbers]


def as_usual(data: str) -> dict[int, float]:
    """Seconds an epoch of all images, by depth."""
    found = {}
    for number, recipe in enumerate(RECIPES):
        if recipe.n_unfrozen in found:
            continue
        some = map(str, (number, number + 1, EPOCHS))
        command = [sys.executable, "-m", "benchmarks.as_usual", data, *some]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[recipe.n_unfrozen] = json.loads(said)["seconds"] / EPOCHS
        print(f"as usual, {recipe.n_unfrozen} layers: {said.strip()}", flush=True)
    return found


def main() -> None:
    """Measures both, and prints a table."""
    data, folder = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
    folder.mkdir(parents=True)
    ours, recipes = swept(data, folder)
    print(f"swept: {ours:.0f} s, {len(recipes)} recipes", flush=True)
    epoch = as_usual(data)
    usual = 0.0
    for depth, epochs in recipes:
        nearest = min(epoch, key=lambda known: abs(known - depth))
        usual += PASSES * epochs * epoch[nearest]
    print("| | nutclf, measured | as usual, reckoned | ratio |")
    print("|---|---|---|---|")
    what = f"{len(recipes)} recipes, cross-validated"
    print(f"| {what} | {ours / 60:.0f} min | {usual / 60:.0f} min | {usual / ours:.1f} |")


if __name__ == "__main__":
    main()
