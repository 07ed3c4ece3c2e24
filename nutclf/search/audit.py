"""The audit of a study's images: files, copies and labels, judged and recorded."""

from collections.abc import Sequence

import pandas as pd

from nutclf.config import StudyConfig
from nutclf.data.audit import audit_files
from nutclf.data.inspection import Seen, inspect
from nutclf.data.source import DataSource
from nutclf.errors import UserError
from nutclf.evaluate.suspects import COLUMNS, rank_suspects
from nutclf.model.backbones import find_spec
from nutclf.search.audit_record import Audit, LabelAudit, write_audit
from nutclf.search.held_out import held_out_by_study, held_out_quickly
from nutclf.search.places import Places
from nutclf.search.session import EXPERIMENTS, Say, data_record
from nutclf.track.audit import audit_folder, check_same_data
from nutclf.train.store import FeatureStore


def audit_images(config: StudyConfig, source: DataSource, places: Places, say: Say) -> Audit:
    """Audits a data set and records it in the run of its study.

    Files of all splits are looked at and compared; labels are judged in train and valid only, as
    the test split's labels meet a model at promotion and not before.

    Args:
      config: of the study, as returned by `nutclf.search.session.for_data`.
      source: of the images.
      places: where to read and write.
      say: takes lines for a person.

    Raises:
      UserError: the study was begun on other data, or the store cannot be written.
    """
    side, data = find_spec(config.backbone).image_size, data_record(source)
    store = places.store.prepare()
    experiment = store.experiment_id(EXPERIMENTS[source.kind])
    check_same_data(store, experiment, config.name, data)
    seen = inspect(source.folder)
    files = audit_files(source.folder, seen, side)
    labels = _audit_labels(config, source, seen, places, say)
    with audit_folder(store, experiment, config.name, data) as (folder, copy):
        found = Audit(source.root, files, labels, copy)
        write_audit(folder, found, data.tags)
    return found


def _audit_labels(
    config: StudyConfig, source: DataSource, seen: Sequence[Seen], places: Places, say: Say
) -> LabelAudit:
    """Ranks labels by the study's own out-of-fold predictions, else by those of a quick model."""
    folder, store = source.folder, places.store
    experiment = store.experiment_id(EXPERIMENTS[source.kind])
    try:
        held_out = held_out_by_study(store, experiment, config, folder.fingerprint)
        if held_out is None:
            say("Judging labels; the first time on these images it takes a minute.")
            features = FeatureStore(places.features, places.feature_budget_bytes, say)
            held_out = held_out_quickly(config, folder, seen, features)
    except UserError as error:  # without weights, say; what the files show stands all the same
        return LabelAudit(pd.DataFrame(columns=list(COLUMNS)), 0, "", str(error))
    suspects = rank_suspects(held_out.table, folder.classes)
    return LabelAudit(suspects, len(held_out.table), held_out.source)
