"""How much of a winner's score is luck: its recipe again, from further seeds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState

from nutclf.config import Recipe, StudyConfig
from nutclf.search.claims import ABANDONED, WORKER
from nutclf.search.records import describe, record_settings, record_sizes
from nutclf.search.scoring import Score, Watch, cross_validated_score, full_score
from nutclf.search.space import suggest
from nutclf.track.runs import DataRecord, Run, close_runs, scores_by_seed, trial_run
from nutclf.train.workbench import Workbench

N_SEEDS = 3


@dataclass(frozen=True)
class Spread:
    """What one recipe scored from several seeds.

    Attributes:
      metric: of the objective.
      number: of the trial whose recipe it is.
      values: one a seed, the study's own seed first.
    """

    metric: str
    number: int
    values: tuple[float, ...]

    def sentence(self) -> str:
        """The spread in words."""
        each = ", ".join(f"{value:.4f}" for value in self.values)
        return (
            f"Trial {self.number} from {len(self.values)} seeds: {self.metric} {each}; mean "
            f"{np.mean(self.values):.4f}, standard deviation {np.std(self.values, ddof=1):.4f}."
        )


def spread_over_seeds(
    study: optuna.Study,
    config: StudyConfig,
    bench: Workbench,
    data: DataRecord,
    parent: Run,
    folds: np.ndarray | None,
    say: Callable[[str], None],
    worker: str,
) -> Spread:
    """Scores the best trial's recipe from `N_SEEDS` seeds; seeds that were done are read, not run.

    A seed changes initial weights, dropout and the order of images; views and folds are the
    study's. The spread is written on the study's run as `winner_<metric>_mean` and `_std`.

    Args:
      study: with a COMPLETE trial.
      config: of the study.
      bench: trains.
      data: what the runs say of their data.
      parent: the study's run.
      folds: as for `TrialRunner`.
      say: takes the spread in words, where it is new.
      worker: name of this process, from `liveness.hold`.
    """
    best, metric = study.best_trial, config.objective.metric
    recipe = suggest(optuna.trial.FixedTrial(best.params), config.space)
    close_runs(parent, best.number, TrialState.FAIL.name, ABANDONED)
    scores = {config.seed: best.value} | scores_by_seed(parent, best.number, metric)
    seeds = range(config.seed, config.seed + N_SEEDS)
    missing = [seed for seed in seeds if seed not in scores]
    for seed in missing:
        name = f"t{best.number:03d} · seed {seed} · {describe(recipe)}"
        run = trial_run(parent, name, best.number, data.tags | {WORKER: worker}, kind="seed")
        scores[seed] = _score(run, config, bench, data, folds, recipe, seed)
    spread = Spread(metric, best.number, tuple(scores[seed] for seed in seeds))
    if missing:
        mean, deviation = np.mean(spread.values), np.std(spread.values, ddof=1)
        parent.metrics({f"winner_{metric}_mean": mean, f"winner_{metric}_std": deviation})
        parent.tags({"winner_trial": best.number, "winner_seeds": spread.sentence()})
        say(spread.sentence())
    return spread


def _score(
    run: Run,
    config: StudyConfig,
    bench: Workbench,
    data: DataRecord,
    folds: np.ndarray | None,
    recipe: Recipe,
    seed: int,
) -> float:
    try:
        record_settings(run, config, recipe, data, seed)
        learner = bench.learner(recipe, seed)
        record_sizes(run, bench, learner)
        if config.objective.cross_validated:
            score: Score = cross_validated_score(run, bench, learner, folds, Watch.fold)
        else:
            score = full_score(run, bench, learner, config.objective, folds, Watch())
    except BaseException as error:
        run.end("FAIL", f"{type(error).__name__}: {error}")
        raise
    run.end("COMPLETE")
    return score.metrics[config.objective.metric]
