"""One trial: a recipe is drawn, trained, judged and recorded; state and status always agree."""

import contextlib
import dataclasses
import time
import traceback
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState

from nutclf.config import Recipe, StudyConfig
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import HEAD_LAYERS, parameter_counts
from nutclf.search.crossval import BLOCKS_PER_FOLD, CrossValidated, cross_validate
from nutclf.search.space import suggest
from nutclf.search.study import flatten
from nutclf.track.evaluation import FOLDER, write_evaluation
from nutclf.track.models import log_model
from nutclf.track.runs import DataRecord, Run, trial_run, write_json
from nutclf.train.learner import History, Learner, OnEpoch
from nutclf.train.workbench import Fitted, Workbench

RUN_ID = "mlflow_run_id"
"""User attribute of an Optuna trial: which run holds its records."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
      number: of the trial.
      state: COMPLETE, PRUNED or FAIL.
      value: of the objective; None unless COMPLETE.
      summary: a phrase for the progress line.
      seconds: of wall time.
    """

    number: int
    state: str
    value: float | None
    summary: str
    seconds: float


class TrialRunner:
    """Runs the trials of one study, one after another.

    Args:
      config: of the study.
      bench: trains.
      data: what the runs say of their data.
      parent: the study's run.
      folds: in which each training image is held out, int [N]; used by cross-validated objectives.
    """

    def __init__(
        self,
        config: StudyConfig,
        bench: Workbench,
        data: DataRecord,
        parent: Run,
        folds: np.ndarray | None = None,
    ):
        self._config, self._bench, self._data, self._parent = config, bench, data, parent
        self._folds = folds

    def run(self, study: optuna.Study, trial: optuna.Trial) -> Outcome:
        """Runs a trial to its end, whatever that is.

        Raises:
          KeyboardInterrupt, SystemExit: after the trial was recorded as FAIL, "interrupted".
        """
        started = time.perf_counter()
        run, value, reason = None, None, None
        try:
            recipe = suggest(trial, self._config.space)
            run = self._open_run(trial, recipe)
            self._record_settings(run, recipe)
            value = self._train(trial, run, recipe, started)
            state = TrialState.COMPLETE
        except optuna.TrialPruned as pruned:
            state, reason = TrialState.PRUNED, str(pruned)
        except Exception as error:
            state, reason = TrialState.FAIL, f"{type(error).__name__}: {error}"
            self._keep_traceback(run)
        except BaseException:
            _close(study, trial, run, TrialState.FAIL, None, "interrupted")
            raise
        _close(study, trial, run, state, value, reason)
        summary = reason.splitlines()[0][:100] if reason else describe(recipe)
        seconds = time.perf_counter() - started
        return Outcome(trial.number, state.name, value, summary, seconds)

    def _open_run(self, trial: optuna.Trial, recipe: Recipe) -> Run:
        name = f"t{trial.number:03d} · {describe(recipe)}"
        run = trial_run(self._parent, name, trial.number, self._data.tags)
        trial.set_user_attr(RUN_ID, run.run_id)
        return run

    def _record_settings(self, run: Run, recipe: Recipe) -> None:
        study = flatten(dataclasses.asdict(self._config))
        run.params(dataclasses.asdict(recipe) | {"backbone": self._config.backbone})
        run.params({"seed": self._config.seed})
        run.params({f"study.{key}": value for key, value in study.items()})
        run.data(self._data)
        with run.artifacts() as folder:
            write_json(folder / "config.json", {"recipe": vars(recipe), "study": study})

    def _train(self, trial: optuna.Trial, run: Run, recipe: Recipe, started: float) -> float:
        """Trains and records; returns the value of the objective."""
        learner = self._bench.learner(recipe)
        self._record_sizes(run, learner)
        metrics, spent = {}, Spent()
        if self._config.objective.cross_validated:
            metrics |= self._cross_validate(trial, run, learner, spent)
        fitted = self._bench.fit(learner, on_epoch=self._watch(trial, run))
        spent.add(fitted)
        best = fitted.history.best
        metrics |= {"best_valid_loss": best["valid_loss"], "best_epoch": fitted.history.best_epoch}
        metrics |= {"best_valid_accuracy": best["valid_accuracy"]}
        self._record_fit(run, learner, fitted.history)
        run.metrics(metrics)
        run.metrics(
            {
                "time_features_s": spent.features,
                "time_train_s": spent.training,
                "time_overhead_s": time.perf_counter() - started - spent.features - spent.training,
            }
        )
        return metrics[self._config.objective.metric]

    def _watch(self, trial: optuna.Trial, run: Run) -> OnEpoch:
        """Logs each epoch; where the valid split is what counts, lets Optuna prune by it."""
        objective = self._config.objective

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            run.metrics(figures, step=epoch)
            if objective.cross_validated:
                return
            trial.report(figures[objective.by_epoch], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"poorer than others after epoch {epoch}")

        return on_epoch

    def _cross_validate(
        self, trial: optuna.Trial, run: Run, learner: Learner, spent: "Spent"
    ) -> dict[str, float]:
        def report(fold: int, blocks: list[float]) -> None:
            for number, accuracy in enumerate(blocks):
                trial.report(accuracy, fold * BLOCKS_PER_FOLD + number)
            if trial.should_prune():
                raise optuna.TrialPruned(f"poorer than the best after fold {fold + 1}")

        found = cross_validate(self._bench, learner, self._folds, report)
        spent.add(found)
        for fold, accuracy in enumerate(found.fold_accuracies, start=1):
            run.metrics({"fold_accuracy": accuracy}, step=fold)
        metrics = write_evaluation(run, "cv", found.table, self._bench.classes, found.accuracy)
        return metrics | {"cv_accuracy_std": float(np.std(found.fold_accuracies, ddof=1))}

    def _record_sizes(self, run: Run, learner: Learner) -> None:
        counts = parameter_counts(learner.tail)
        head = sum(learner.tail.get_layer(name).count_params() for name in HEAD_LAYERS)
        run.params(
            {
                "trainable_parameters": counts["trainable"],
                "total_parameters": self._bench.backbone.model.count_params() + head,
                "weights": self._bench.backbone.origin,
                "weights_digest": self._bench.backbone.digest,
            }
        )

    def _record_fit(self, run: Run, learner: Learner, history: History) -> None:
        """Predictions, matrix and figures of the valid split, learning curves, the model."""
        from nutclf.evaluate.figures import learning_curves

        valid, classes = self._bench.splits["valid"], self._bench.classes
        whole, y_prob = self._bench.assemble(learner)
        table = prediction_table(valid.paths, valid.labels, y_prob, classes)
        write_evaluation(run, "valid", table, classes, history.best["valid_accuracy"])
        epochs = pd.DataFrame(history.epochs)
        epochs.insert(0, "epoch", range(1, len(epochs) + 1))
        with run.artifacts() as folder:
            (folder / FOLDER).mkdir()
            figure = learning_curves(epochs, history.best_epoch)
            figure.savefig(folder / FOLDER / "learning_curves.png")
        log_model(run, whole, self._metadata())

    def _metadata(self) -> dict[str, object]:
        """What a person needs beside the model; the class order is read from here only."""
        return {
            "classes": list(self._bench.classes),
            "image_size": self._bench.backbone.spec.image_size,
            "pixels": "RGB, 0 to 255, uint8 or float, [B, H, W, 3]",
            "backbone": self._bench.backbone.spec.name,
            "data_fingerprint": self._data.fingerprint,
            "data_source": self._data.kind,
        }

    def _keep_traceback(self, run: Run | None) -> None:
        if run is None:
            return
        # What broke the trial, a full disk say, may break this too; the trial is closed anyway.
        with contextlib.suppress(Exception), run.artifacts() as folder:
            (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")


def describe(recipe: Recipe) -> str:
    """A recipe in a few words: what its run is called."""
    return f"{recipe.n_unfrozen} unfrozen · {recipe.lr_schedule}"


def _close(
    study: optuna.Study,
    trial: optuna.Trial,
    run: Run | None,
    state: TrialState,
    value: float | None,
    reason: str | None,
) -> None:
    """Optuna's record is the one that counts, so it is told first; the run follows it."""
    if reason:
        trial.set_user_attr("reason", reason[:2000])
    study.tell(trial, value, state=state)
    if run is not None:
        run.end(state.name, reason)


@dataclass
class Spent:
    """Seconds of a trial that went into features and into training."""

    features: float = 0.0
    training: float = 0.0

    def add(self, part: Fitted | CrossValidated) -> None:
        """Counts one part of the trial."""
        self.features += part.seconds_features
        self.training += part.seconds_train
