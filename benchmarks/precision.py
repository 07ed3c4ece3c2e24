"""What half-precision features change: the same fits on float32 and on float16 features.

Usage: python -m benchmarks.precision DATA
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import Recipe

RECIPES = [Recipe(n_unfrozen=depth, epochs=4) for depth in (0, 4, 29)]


def main() -> None:
    """Prints a line a depth: largest difference in loss, predictions that differ, disk."""
    import numpy as np

    results, sizes = {}, {}
    for dtype in ("float32", "float16"):
        with tempfile.TemporaryDirectory() as folder:
            config = replace(study_of(RECIPES), feature_dtype=dtype)
            _, bench = open_bench(config, Path(sys.argv[1]), Path(folder))
            for recipe in RECIPES:
                result = bench.fit(recipe)
                epochs = result.history.epochs
                losses = np.array([[e["train_loss"], e["valid_loss"]] for e in epochs])
                results[dtype, recipe.n_unfrozen] = losses, result.valid[0]
            sizes[dtype] = sum(file.stat().st_size for file in Path(folder).glob("*.npy")) / 1e6
    for recipe in RECIPES:
        (a, p), (b, q) = (results[d, recipe.n_unfrozen] for d in ("float32", "float16"))
        changed = int((p.argmax(axis=1) != q.argmax(axis=1)).sum())
        print(
            f"{recipe.n_unfrozen} unfrozen: losses differ by {np.abs(a - b).max():.1e} at most, "
            f"probabilities by {np.abs(p - q).max():.1e}, {changed} of {len(p)} predictions"
        )
    print(", ".join(f"{dtype} {size:.0f} MB" for dtype, size in sizes.items()))


if __name__ == "__main__":
    main()
