"""Which labels are probably wrong, by models that did not learn from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nutclf.config import StudyConfig
from nutclf.data.duplicates import Seen, groups_of_like
from nutclf.data.folder import DataSet, Split, read_split
from nutclf.errors import UserError
from nutclf.evaluate.baselines import BASELINES, judge
from nutclf.evaluate.folds import assign_folds
from nutclf.evaluate.predictions import labels, prediction_table, probabilities
from nutclf.model.backbones import Backbone, load_backbone
from nutclf.track.evaluation import stored_predictions
from nutclf.track.registry import best_run
from nutclf.track.runs import Run
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore
from nutclf.train.features import FrozenPart, StoredFeatures
from nutclf.train.views import UNTOUCHED

COLUMNS = ("path", "label", "looks_like", "score", "p_label", "p_looks_like")


def rank_suspects(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The images whose label is probably wrong, the surest first.

    An image is a suspect where the probability of another class exceeds the mean that images of
    that class get for it (confident learning). Suspects are ranked by the margin between the
    probability of the label and of the likeliest other class, which brings images of another known
    class to the top, and images that are no class at all further down.

    Args:
      table: from `prediction_table`; every probability from a model that did not learn from that
        image, or it agrees with any label.
      classes: all C class names.

    Returns:
      A row a suspect with `COLUMNS`: path, given label, the likeliest other class, the score, 0
      (surely wrong) to 1, and the probabilities of the label and of that other class.

    Raises:
      ValueError: the table has no rows, or fewer than two classes.
    """
    y_true, _ = labels(table, classes)
    if len(np.unique(y_true)) < 2:
        raise ValueError(f"{len(table)} images of fewer than two classes: nothing to confuse")
    y_prob = probabilities(table, classes)
    suspected, score = _confident_learning(y_true, y_prob / y_prob.sum(axis=1, keepdims=True))
    rows = np.arange(len(y_true))
    others = y_prob.copy()
    others[rows, y_true] = -1
    other = others.argmax(axis=1)
    names = np.array(list(classes), dtype=object)
    ranked = pd.DataFrame(
        {
            "path": table["path"].to_numpy(),
            "label": names[y_true],
            "looks_like": names[other],
            "score": score,
            "p_label": y_prob[rows, y_true],
            "p_looks_like": y_prob[rows, other],
        }
    )[suspected]
    # By path where scores are equal, so that the order does not depend on the table's.
    return ranked.sort_values(["score", "path"], ignore_index=True)


def _confident_learning(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each label is suspect, bool [N], and its score [N]."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    # One process: cleanlab would fork this one, and TensorFlow's threads do not survive that.
    suspected = find_label_issues(y_true, y_prob, filter_by="confident_learning", n_jobs=1)
    return suspected, get_label_quality_scores(y_true, y_prob, method="normalized_margin")


_CLASSIFIER = "logistic regression"
_JUDGED = ("train", "valid")  # the test split's labels are sealed


@dataclass(frozen=True)
class HeldOut:
    """What models said of images that they had not learned from.

    Attributes:
      table: as from `prediction_table`; of train and valid images.
      source: a phrase for people: which models these were.
    """

    table: pd.DataFrame
    source: str


def held_out_by_study(
    store: Store, experiment_id: str, config: StudyConfig, fingerprint: str
) -> HeldOut | None:
    """The out-of-fold predictions of a study's best run; None where it has none on these data."""
    client = store.client()
    found = best_run(client, experiment_id, config.name, config.objective)
    if found is None or found.data.tags["data_fingerprint"] != fingerprint:
        return None
    run = Run(client, found.info.run_id)
    tables = [stored_predictions(run, split) for split in ("cv", "valid")]
    if any(table is None for table in tables):
        return None
    table = pd.concat(tables, ignore_index=True).drop(columns="fold")
    return HeldOut(table, f"{found.info.run_name} of study {config.name}, cross-validated")


def held_out_quickly(
    config: StudyConfig, folder: DataSet, seen: Sequence[Seen], features: FeatureStore
) -> HeldOut:
    """Cross-validates a classical classifier on the frozen network's pooled features.

    One pass over the images, and a second for each fold.

    Args:
      config: gives the network, the folds and the seed.
      folder: the data set.
      seen: its files, from `nutclf.data.inspection.inspect`.
      features: keeps what the network makes of the images.

    Raises:
      UserError: no weights; a class without a readable image, or with a single different one.
    """
    backbone = load_backbone(config.backbone)
    splits = {split: _readable(folder, split, backbone) for split in _JUDGED}
    part = FrozenPart(backbone, config.augmentation, config.seed, deepest=0)
    vectors = {split: _pooled(part, images, features) for split, images in splits.items()}
    train, valid = splits["train"], splits["valid"]
    folds = _folds(config, folder.classes, train, seen)
    classifier = BASELINES[_CLASSIFIER](config.seed)
    judged = judge(
        classifier, (vectors["train"], train.labels), folds, vectors["valid"], len(folder.classes)
    )
    tables = [
        prediction_table(images.paths, images.labels, y_prob, folder.classes)
        for images, y_prob in ((train, judged.held_out), (valid, judged.valid))
    ]
    source = f"{_CLASSIFIER} on frozen {backbone.spec.name} features, {folds.max() + 1} folds"
    return HeldOut(pd.concat(tables, ignore_index=True), source)


def _readable(folder: DataSet, split: str, backbone: Backbone) -> Split:
    """A split without its broken files, however many: the audit names them elsewhere."""
    return read_split(folder, split, backbone.spec.image_size, allow_unreadable=True)


def _pooled(part: FrozenPart, images: Split, features: FeatureStore) -> np.ndarray:
    stored = StoredFeatures(part, part.base_cut, images, features, "float32")
    return stored.batch(UNTOUCHED, np.arange(len(images.labels)))


def _folds(
    config: StudyConfig, classes: Sequence[str], train: Split, seen: Sequence[Seen]
) -> np.ndarray:
    """As many folds as the rarest class allows, the study's number at most."""
    likeness = {file.path: file.likeness for file in seen}
    groups = groups_of_like(train.keys, np.stack([likeness[path] for path in train.paths]))
    different = [len(np.unique(groups[train.labels == label])) for label in range(len(classes))]
    fewest = min(different)
    if fewest < 2:
        raise UserError(
            f"Class {classes[different.index(fewest)]!r} has a single training image that can be "
            "read and is no copy; give every class two or more."
        )
    return assign_folds(train.labels, groups, min(config.n_folds, fewest), config.seed)
