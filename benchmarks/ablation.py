"""Cross-validated accuracy of recipes: what each addition to the published one brings.

Usage: python -m benchmarks.ablation DATA FEATURES_FOLDER [NAME ...]
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import Recipe

PUBLISHED = Recipe()
BETTER = Recipe(
    n_unfrozen=29,
    dropout_rate=0.5,
    epochs=5,
    lr_schedule="cosine",
    learning_rate=1e-3,
    warmup_epochs=20,
    label_smoothing=0.1,
    weight_decay=0.01,
)
RECIPES = {
    "published": PUBLISHED,
    "head30": replace(BETTER, n_unfrozen=0, epochs=30, warmup_epochs=0),
    "head30ns": replace(BETTER, n_unfrozen=0, epochs=30, warmup_epochs=0, label_smoothing=0.0),
    "head30hi": replace(BETTER, n_unfrozen=0, epochs=30, warmup_epochs=0, learning_rate=3e-3),
    "20": replace(BETTER, n_unfrozen=20),
    "20 3e-4": replace(BETTER, n_unfrozen=20, learning_rate=3e-4),
    "29 3e-4": replace(BETTER, learning_rate=3e-4),
    "56 3e-4": replace(BETTER, n_unfrozen=56, learning_rate=3e-4),
    "56 3e-4 8": replace(BETTER, n_unfrozen=56, learning_rate=3e-4, epochs=8),
}


def main() -> None:
    """Cross-validates the recipes named, or all, one after another, on the same folds."""
    data, features = Path(sys.argv[1]), Path(sys.argv[2])
    config = study_of(list(RECIPES.values()), n_views=8)
    _, bench = open_bench(config, data, features)
    import numpy as np

    from nutclf.evaluate.intervals import Rate
    from nutclf.evaluate.metrics import classification_metrics
    from nutclf.search.crossval import cross_validate
    from nutclf.search.session import make_folds

    folds = make_folds(config, bench.splits["train"])
    for name in sys.argv[3:] or RECIPES:
        started = time.perf_counter()
        found = cross_validate(bench, bench.learner(RECIPES[name]), folds, lambda fold, b: None)
        loss = classification_metrics(found.table, bench.classes)["loss"]
        right = int((found.table["y_true"] == found.table["y_pred"]).sum())
        print(
            f"{name}: cv_accuracy {Rate(right, len(found.table))}, deviation over folds "
            f"{np.std(found.fold_accuracies, ddof=1):.3f}, cv_loss {loss:.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
