"""Which labels are probably wrong, by models that did not learn from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.config import WHOLE, StudyConfig
from nutclf.data.folder import DataSet, Split, read_split
from nutclf.errors import UserError
from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.folds import make_folds
from nutclf.evaluate.predictions import labels, prediction_table, probabilities
from nutclf.model.backbones import load_backbone
from nutclf.track.evaluation import stored_predictions
from nutclf.track.registry import best_run
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import Features, FrozenPart

COLUMNS = ("path", "label", "looks_like", "score", "p_label", "p_looks_like")


@dataclass(frozen=True)
class LabelAudit:
    """Which labels are doubtful."""

    suspects: pd.DataFrame  # from `rank_suspects`
    n_images: int = 0  # whose labels were judged
    judged_by: str = ""  # a phrase: which models
    skipped: str = ""  # why no label was judged


def audit_labels(
    config: StudyConfig,
    data: DataSet,
    store: Store,
    experiment_id: str,
    features: FeatureStore,
    say: Callable[[str], None],
) -> LabelAudit:
    """Ranks the labels of train and valid; those of the test split are sealed.

    By the out-of-fold predictions of the study's best run, all of whose trials must be on these
    images; where there are none, by a logistic regression on the frozen network's features.
    """
    try:
        best = best_run(store.client(), experiment_id, config.name, config.objective)
        run = best and Run(store.client(), best.info.run_id)
        tables = [run and stored_predictions(run, split) for split in ("cv", "valid")]
        if any(table is None for table in tables):
            say("Judging labels; the first time on these images it takes a minute.")
            tables, judged_by = _probe(config, data, features)
        else:
            judged_by = f"{best.info.run_name} of study {config.name}, cross-validated"
    except UserError as error:  # no weights, for example; the findings on files stand all the same
        return LabelAudit(pd.DataFrame(columns=list(COLUMNS)), skipped=str(error))
    table = pd.concat(tables)
    return LabelAudit(rank_suspects(table, data.classes), len(table), judged_by)


def _probe(config: StudyConfig, data: DataSet, store: FeatureStore) -> tuple[list, str]:
    """The out-of-fold predictions of train and those of valid, and a phrase: by which model."""
    backbone = load_backbone(config.backbone, image_size=config.image_size)
    part = FrozenPart(backbone, config.augmentation, config.seed, deepest=0)

    def read(split: str) -> tuple[Split, np.ndarray]:
        # Broken files are left out, however many: the audit lists them elsewhere.
        images = read_split(data, split, backbone.spec.image_size, allow_unreadable=True)
        return images, Features(part, part.base_cut, images, store, "float32").all(WHOLE)

    (train, of_train), (valid, of_valid) = read("train"), read("valid")
    folds = make_folds(train, config.n_folds, config.seed, "{}; give every class two or more.")
    classifier = BASELINES["logistic regression"](config.seed)
    judged = judge(classifier, (of_train, train.labels), folds, of_valid, len(data.classes))
    tables = [
        prediction_table(split.paths, split.labels, y_prob, data.classes)
        for split, y_prob in zip((valid, train), judged, strict=True)
    ]
    model = f"logistic regression on frozen {backbone.spec.name} features"
    return tables, f"{model}, {folds.max() + 1} folds"


def rank_suspects(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The images whose label is probably wrong, the surest first: a row each, with `COLUMNS`.

    An image is a suspect where the probability of another class exceeds the mean that images of
    that class get for it (confident learning). The score, 0 (surely wrong) to 1, is the margin
    between the label and the likeliest other class: images that are no class at all come late.
    `table` holds out-of-fold predictions: a model agrees with any label that it learned from.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    (y_true, _), y_prob = labels(table, classes), probabilities(table, classes)
    whole = y_prob / y_prob.sum(axis=1, keepdims=True)
    # One process: cleanlab would fork this one, and TensorFlow's threads do not survive that.
    suspected = find_label_issues(y_true, whole, filter_by="confident_learning", n_jobs=1)
    rows = np.arange(len(y_true))
    other = np.where(np.eye(len(classes))[y_true], -1, y_prob).argmax(axis=1)
    names = np.array(list(classes), dtype=object)
    score = get_label_quality_scores(y_true, whole, method="normalized_margin")
    columns = names[y_true], names[other], score, y_prob[rows, y_true], y_prob[rows, other]
    ranked = pd.DataFrame(dict(zip(COLUMNS, (table["path"].to_numpy(), *columns), strict=True)))
    # By path where scores are equal, so that the order does not depend on the table's.
    return ranked[suspected].sort_values(["score", "path"], ignore_index=True)
