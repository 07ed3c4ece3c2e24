"""What each part of the best recipe brings: taken out one at a time, on the same five folds.

Usage: python -m benchmarks.ablation DATA FEATURES_FOLDER [NAME ...]

Prints Markdown. "whole" is the untouched image, "one view" the best of one view, "views" of
averaged ones, "all" with a probe blended in; each is chosen nested. All are means of `SEEDS`; then
come the images right with all from each seed, and how many more these are than the first recipe's
from the same seed, with McNemar's p. Where no recipe is named it adds what the first says of the
same images at other scales, and what the mean weights of its folds ("soup") say against one fit.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import Ensemble, Recipe, View

BEST = Recipe(29, 0.5, 8, "cosine", 3e-4, 32, 8)
RECIPES = {
    "best: 29 layers, 8 + 8 epochs": BEST,
    "no warm-up of the head": replace(BEST, warmup_epochs=0),
    "8 + 4 epochs": replace(BEST, epochs=4),
    "20 layers": replace(BEST, n_unfrozen=20),
    "11 layers": replace(BEST, n_unfrozen=11),
    "4 layers": replace(BEST, n_unfrozen=4),
    "the head alone": replace(BEST, n_unfrozen=0),
    "published recipe": Recipe(),
}
SEEDS = (0, 1, 2)
SCALES = {"padded to 1.5 times the side": View(1.5), "the centre 0.6": View(0.6)}


class Ablation:
    """The photographs in five folds, and the probes."""

    def __init__(self, data: Path, features: Path):
        self.config = study_of(list(RECIPES.values()), n_views=9)
        _, self.bench = open_bench(self.config, data, features)
        from nutclf.evaluate.folds import make_folds

        self.train = self.bench.splits["train"]
        self.folds = make_folds(self.train, self.config.n_folds, self.config.seed, "No folds: {}")
        started = time.perf_counter()
        self.probes = {p.name: p.held_out for p in self.bench.fit_probes(self.folds)}
        print(f"probes: {time.perf_counter() - started:.0f} s\n")
        print("| recipe | whole | one view | views | all | right, by seed | s a fit |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for name, held_out in self.probes.items():
            self.row(name, [held_out])

    def row(self, name, networks, seconds="", first=None):
        """Prints a line for what each seed's fits say; which images are right with all [S, N]."""
        import numpy as np

        from nutclf.evaluate.ensembles import Answers, choose
        from nutclf.evaluate.intervals import Rate, mcnemar

        plain = [ensemble for ensemble in self.config.ensembles if not ensemble.probe]
        single = [ensemble for ensemble in plain if len(ensemble.views) == 1]
        shares, right, by_seed = [], [], []
        for seed, network in enumerate(networks):
            answers = Answers(self.config.test_views, network, self.probes)
            of_seed = []
            for ensembles in ([Ensemble()], single, plain, self.config.ensembles):
                said, chosen = choose(answers, ensembles, self.train.labels, self.folds)
                hits = said.argmax(axis=1) == self.train.labels
                of_seed.append(hits.mean())
            shares.append(of_seed)
            right.append(hits)
            by_seed.append(str(Rate(int(hits.sum()), len(hits))) if not seed else f"{hits.sum()}")
            if first is not None:
                won, lost = int((hits & ~first[seed]).sum()), int((first[seed] & ~hits).sum())
                by_seed[-1] += f" ({won - lost:+d}, p {mcnemar(lost, won):.2g})"
        means = " | ".join(f"{share:.3f}" for share in np.mean(shares, axis=0))
        print(f"| {name} | {means} | {'; '.join(by_seed)} | {seconds} |", flush=True)
        return np.array(right), chosen

    def fit(self, recipe: Recipe, seed: int):
        """One fit a fold, and what they say of the images held out, [V, N, C]."""
        import numpy as np

        fits = [
            self.bench.fit(recipe, seed, rows=np.flatnonzero(self.folds != fold))
            for fold in range(self.config.n_folds)
        ]
        network = np.empty((len(self.config.test_views), len(self.folds), 10), np.float32)
        for fold, fitted in enumerate(fits):
            network[:, self.folds == fold] = fitted.held_out
        return fits, network

    def steady(self, fits: list, ensemble: Ensemble) -> None:
        """Out-of-fold accuracy of fits on the same images at other scales."""
        import numpy as np

        from nutclf.data.folder import Split
        from nutclf.evaluate.baselines import fit_linear, probabilities
        from nutclf.evaluate.ensembles import Answers
        from nutclf.model.tta import look

        bench, train, labels = self.bench, self.train, self.train.labels
        learned = bench.learned_by_probes()
        for what, view in SCALES.items():
            seen = [np.asarray(look(one[None].astype("float32"), view))[0] for one in train.pixels]
            pixels = np.rint(np.clip(seen, 0, 255)).astype(np.uint8)
            keys = [f"{key} at {view}" for key in train.keys]
            bench.splits[what] = Split(pixels, labels, train.paths, keys)
            asked, right = bench.asked_of_probes(what), {}
            for fold, fitted in enumerate(fits):
                rows, said = self.folds == fold, {}
                if ensemble.probe:
                    dense = fit_linear(learned, labels, ~rows)[ensemble.probe]
                    views = [probabilities(features[rows], *dense) for features in asked]
                    said[ensemble.probe] = np.stack(views)
                network = bench.predict(fitted, what)[:, rows]
                answers = Answers(self.config.test_views, network, said)
                for way in (Ensemble(), ensemble):
                    hits = answers.under(way).argmax(axis=1) == labels[rows]
                    right[str(way)] = right.get(str(way), 0) + int(hits.sum())
            shares = "; ".join(f"{way}: {n / len(labels):.3f}" for way, n in right.items())
            print(f"({what}: {shares})", flush=True)

    def soup(self, recipe: Recipe, held_out: int) -> None:
        """A fold that no fit sees: the mean of four fits' weights, against one fit on all four."""
        import numpy as np

        bench, others = self.bench, [f for f in range(self.config.n_folds) if f != held_out]
        rest = np.flatnonzero(self.folds != held_out)
        parts = [bench.fit(recipe, rows=rest[self.folds[rest] != fold]) for fold in others]
        weights = {
            name: [
                np.mean(each, axis=0)
                for each in zip(*(p.weights[name] for p in parts), strict=True)
            ]
            for name in parts[0].weights
        }
        whole = bench.fit(recipe, rows=rest)
        rows = self.folds == held_out
        shares = []
        for fitted in (replace(whole, weights=weights), whole):
            said = bench.predict(fitted, "train")[:, rows].mean(axis=0).argmax(axis=1)
            shares.append(f"{(said == self.train.labels[rows]).mean():.3f}")
        print(f"(fold {held_out}, all views: soup {shares[0]}, one fit {shares[1]})", flush=True)


def main() -> None:
    """Scores the recipes named, or all, one after another."""
    ablation, first = Ablation(Path(sys.argv[1]), Path(sys.argv[2])), None
    for name in sys.argv[3:] or RECIPES:
        began = time.perf_counter()
        by_seed = [ablation.fit(RECIPES[name], seed) for seed in SEEDS]
        n_fits = len(SEEDS) * ablation.config.n_folds
        seconds = f"{(time.perf_counter() - began) / n_fits:.0f}"
        right, ensemble = ablation.row(name, [said for _, said in by_seed], seconds, first)
        if first is None:
            first = right
            print(f"(it answers with {ensemble})", flush=True)
            if not sys.argv[3:]:
                ablation.steady(by_seed[0][0], ensemble)
                for fold in range(2):
                    ablation.soup(RECIPES[name], fold)


if __name__ == "__main__":
    main()
