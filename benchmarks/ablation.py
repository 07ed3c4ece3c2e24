"""Out-of-fold accuracy of recipes: what each addition to the published one brings.

Usage: python -m benchmarks.ablation DATA FEATURES_FOLDER N_FOLDS [NAME ...]

N_FOLDS of the five are held out, one after the other; a deep recipe takes minutes a fold.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.cli import load_study
from nutclf.config import Recipe

PUBLISHED = Recipe()
DEEP = load_study("mobilenetv2_deep", name="").baseline
RECIPES = {
    "published": PUBLISHED,
    "head": replace(DEEP, n_unfrozen=0, epochs=20, warmup_epochs=0, learning_rate=1e-3),
    "4": replace(DEEP, n_unfrozen=4),
    "20": replace(DEEP, n_unfrozen=20),
    "29": replace(DEEP, n_unfrozen=29),
    "deep": DEEP,
    "deep, still": replace(DEEP, batch_norm="still"),
    "deep, batch 64": replace(DEEP, batch_size=64),
    "deep, still, batch 64": replace(DEEP, batch_norm="still", batch_size=64),
    "deep, 6 epochs": replace(DEEP, epochs=6),
    "deep, 1e-3": replace(DEEP, learning_rate=1e-3),
    "deep, cold head": replace(DEEP, warmup_epochs=0),
    "deep, hard labels": replace(DEEP, label_smoothing=0.0),
    "deep, no decay": replace(DEEP, weight_decay=0.0),
}


def main() -> None:
    """Scores the recipes named, or all, one after another, on the same folds."""
    data, features, n_folds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = study_of(list(RECIPES.values()), n_views=9)
    _, bench = open_bench(config, data, features)
    from nutclf.evaluate.folds import make_folds

    folds = make_folds(bench.splits["train"], config.n_folds, config.seed, "No folds: {}")
    for name in sys.argv[4:] or RECIPES:
        print(f"{name}: {_score(bench, RECIPES[name], folds, n_folds)}", flush=True)


def _score(bench, recipe: Recipe, folds, n_folds: int) -> str:
    import numpy as np

    from nutclf.evaluate.intervals import Rate

    started, labels = time.perf_counter(), bench.splits["train"].labels
    right = []
    for fold in range(n_folds):
        result = bench.fit(recipe, rows=np.flatnonzero(folds != fold))
        right.append(result.held_out.argmax(axis=1) == labels[folds == fold])
    each = " ".join(f"{part.mean():.3f}" for part in right)
    seconds = time.perf_counter() - started
    together = np.concatenate(right)
    return f"{Rate(int(together.sum()), len(together))}; by fold {each}; {seconds:.0f} s"


if __name__ == "__main__":
    main()
