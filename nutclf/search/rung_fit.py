"""Rungs 2 to 6: one fit each, recorded as a trial is."""

from collections.abc import Mapping

from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.model.network import parameter_counts
from nutclf.search.records import record_fit, record_settings, record_sizes
from nutclf.search.rows import Row
from nutclf.search.rungs import Figure, Rung, check_parameters
from nutclf.search.scoring import Watch, full_score
from nutclf.track.evaluation import metrics_of
from nutclf.track.runs import DataRecord, Run
from nutclf.train.learner import History, Learner
from nutclf.train.workbench import Workbench


def fit_rung(run: Run, rung: Rung, bench: Workbench, data: DataRecord) -> tuple[Learner, list[Row]]:
    """Trains a rung, records it in `run`, and compares it with what was published.

    Args:
      run: of the rung.
      rung: what to train.
      bench: with the rung's augmentation.
      data: what the run says of its data.

    Returns:
      The learner, with the weights of its best epoch, and the rung's lines of the table.

    Raises:
      RuntimeError: other parameters train than in the publication.
    """
    config = bench.config
    record_settings(run, config, rung.recipe, data, config.seed)
    learner = bench.learner(rung.recipe)
    counted = parameter_counts(learner.tail)["trainable"]
    check_parameters(config.backbone, len(bench.classes), rung.recipe.n_unfrozen, counted)
    record_sizes(run, bench, learner)
    watch = Watch(epoch=lambda epoch, figures: run.metrics(figures, step=epoch))
    score = full_score(run, bench, learner, config.objective, None, watch)
    record_fit(run, bench, data, learner, score)
    once = _of_train(bench, learner)
    run.metrics(once)
    run.metrics({"time_features_s": score.spent.features, "time_train_s": score.spent.training})
    n = {split: len(images.labels) for split, images in bench.splits.items()}
    once |= {"trainable_parameters": counted}
    return learner, [_row(rung, figure, score.history, once, n) for figure in rung.figures]


def _of_train(bench: Workbench, learner: Learner) -> dict[str, float]:
    """Precision and recall on the untouched training images, without dropout, of the kept epoch."""
    train = bench.splits["train"]
    y_prob = bench.predict(learner, "train")
    table = prediction_table(train.paths, train.labels, y_prob, bench.classes)
    metrics = metrics_of("train", table, bench.classes)
    return {name: metrics[name] for name in ("train_macro_precision", "train_macro_recall")}


def _row(
    rung: Rung,
    figure: Figure,
    history: History,
    once: Mapping[str, float],
    n: Mapping[str, int],
) -> Row:
    """One figure of a rung: as many of its last epochs as were published, or the last one."""
    label, last = figure.label, len(history.epochs)
    if figure.metric in once:
        values = [once[figure.metric]]
    else:
        first = last - max(1, len(figure.published))
        values = [epoch[figure.metric] for epoch in history.epochs[first:]]
        label += f", epoch {last}" if len(values) == 1 else f", epochs {first + 1}-{last}"
    here = ", ".join(f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in values)
    rate = Rate(round(values[-1] * n[figure.of]), n[figure.of]) if figure.of else None
    return Row(rung.number, rung.title, label, ", ".join(figure.published), here, rate)
