"""What fewer bits change, kept on disk or in training: the same fits, five folds.

Usage: python -m benchmarks.precision DATA

Fits alternate, so that all are timed in the same hour. Images held out are answered by the
untouched image alone.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import WHOLE, Recipe

RECIPES = [Recipe(n_unfrozen=depth, epochs=4, batch_size=32) for depth in (0, 4, 29)]
SETTINGS = {
    "float32": {},
    "features kept in float16": {"feature_dtype": "float16"},
    "training in mixed_bfloat16": {"precision": "mixed_bfloat16"},
}


def main() -> None:
    """Prints a row a depth and setting, differences against the first setting."""
    import numpy as np

    from nutclf.evaluate.folds import make_folds

    with tempfile.TemporaryDirectory() as folder:
        benches = {}
        for name, changes in SETTINGS.items():
            config = replace(study_of(RECIPES, tta=((WHOLE,),), blend=()), **changes)
            kept = Path(folder) / config.feature_dtype
            _, benches[name] = open_bench(config, Path(sys.argv[1]), kept)
        train = benches["float32"].splits["train"]
        folds = make_folds(train, config.n_folds, config.seed, "No folds: {}")
        print("| layers | | seconds a fit | right | predictions changed | loss, at most |")
        print("|---|---|---|---|---|---|")
        for recipe in RECIPES:
            said = {name: np.empty((len(folds), 10)) for name in SETTINGS}
            seconds, losses = ({name: [] for name in SETTINGS} for _ in range(2))
            for fold in range(config.n_folds):
                for name, bench in benches.items():
                    fitted = bench.fit(recipe, rows=np.flatnonzero(folds != fold))
                    said[name][folds == fold] = fitted.held_out[0]
                    seconds[name].append(fitted.seconds_train)
                    epochs = fitted.history.epochs
                    losses[name].append([[e["train_loss"], e["valid_loss"]] for e in epochs])
            first = said["float32"].argmax(axis=1)
            for name in SETTINGS:
                now = said[name].argmax(axis=1)
                gap = np.abs(np.subtract(losses[name], losses["float32"])).max()
                span = f"{min(seconds[name]):.1f} to {max(seconds[name]):.1f}"
                right, changed = (now == train.labels).sum(), (now != first).sum()
                row = recipe.n_unfrozen, name, span, right, changed, f"{gap:.1g}"
                print(f"| {' | '.join(map(str, row))} |", flush=True)
        for kept in sorted(Path(folder).iterdir()):
            print(f"{kept.name}: {sum(f.stat().st_size for f in kept.glob('*.npy')) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
