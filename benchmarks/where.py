"""Where the time goes, against a plain matrix product on the same machine.

Usage: python -m benchmarks.where DATA
"""

import sys
import time
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import Recipe

N = 256
REPEATS = 5
DEPTHS = (4, 29)


def fastest(work) -> tuple[float, float]:
    """Least and greatest seconds of `REPEATS` runs, after one that is not counted."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), max(seconds)


def main() -> None:
    """Prints a table."""
    recipes = [Recipe(n_unfrozen=depth) for depth in DEPTHS]
    config = study_of(recipes)
    _, bench = open_bench(config, Path(sys.argv[1]), None)
    import keras
    import numpy as np
    import tensorflow as tf

    from nutclf.model import cuts, network, prefix
    from nutclf.train.learner import Learner
    from nutclf.train.views import Augmenter

    def flops(forward, spec) -> float:
        graph = tf.function(forward).get_concrete_function(spec).graph
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops

    spec = bench.backbone.spec
    trunk, pixels = cuts.trunk(bench.backbone.model), bench.splits["train"].pixels[:N]
    keys = bench.splits["train"].keys[:N]
    square = tf.random.normal((4096, 4096))
    product = tf.function(lambda: tf.reduce_sum(square @ square))
    peak = 2 * 4096**3 / fastest(lambda: product().numpy())[0] / 1e9
    print("| what | a second | GFLOP/s | of the matrix product |\n|---|---|---|---|")
    print(f"| matrix product, 4096 x 4096 | | {peak:.0f} | 100 % |")

    def row(name: str, work, n: int, each: float) -> None:
        least, most = fastest(work)
        rate, share = n * each / least / 1e9, n * each / least / 1e9 / peak
        print(f"| {name} | {n / most:.0f} to {n / least:.0f} images | {rate:.0f} | {share:.0%} |")

    augmenter = Augmenter(config.augmentation, spec.image_size, config.seed)
    size = prefix.batch_size()
    batches = [slice(i, i + size) for i in range(0, N, size)]
    least, most = fastest(lambda: [augmenter.view(pixels[b], keys[b], 0) for b in batches])
    print(f"| drawing a view | {N / most:.0f} to {N / least:.0f} images | | |")
    whole = flops(
        lambda x: trunk(x, training=False), tf.TensorSpec((1, *trunk.input_shape[1:]), tf.float32)
    )
    scaled = keras.Sequential(
        [keras.Input(trunk.input_shape[1:]), prefix.scaling_layer(spec), trunk]
    )
    row("whole trunk, keras predict", lambda: scaled.predict(pixels, verbose=0), N, whole)
    run = prefix.pixels_to_cut(spec, trunk, len(trunk.layers) - 1)
    row("whole trunk, ours", lambda: [run(pixels[b]) for b in batches], N, whole)
    for recipe in recipes:
        depth, n_classes = recipe.n_unfrozen, len(bench.classes)
        cut = cuts.cut_for_depth(trunk, depth)
        tail = network.build_tail(trunk, cut, depth, n_classes, recipe.dropout_rate, config.seed)
        Learner(tail, cut, recipe, config.seed)  # compiles it
        name, part = trunk.layers[cut].name, cuts.between(trunk, 0, cut)
        to_cut = flops(
            lambda x, part=part: part(x, training=False),
            tf.TensorSpec((1, *trunk.input_shape[1:]), tf.float32),
        )
        usual = keras.Sequential(
            [keras.Input(trunk.input_shape[1:]), prefix.scaling_layer(spec), part]
        )
        row(f"to {name}, keras predict", lambda m=usual: m.predict(pixels, verbose=0), N, to_cut)
        run = prefix.pixels_to_cut(spec, trunk, cut)
        row(f"to {name}, ours", lambda run=run: [run(pixels[b]) for b in batches], N, to_cut)
        x = np.random.default_rng(0).random((64, *tail.input_shape[1:]), np.float32)
        y = np.eye(n_classes, dtype=np.float32)[np.arange(64) % n_classes]
        # Backward: once for the weights, once for what enters each layer.
        each = 3 * (whole - to_cut)
        row(
            f"training step of the last {depth} layers",
            lambda tail=tail, x=x, y=y: tail.train_on_batch(x, y),
            64,
            each,
        )


if __name__ == "__main__":
    main()
