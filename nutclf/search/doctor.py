"""The doctor: everything that can be wrong with a store and with the features, in order, once."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from nutclf.errors import UserError
from nutclf.search.lost import find_lost
from nutclf.search.study import n_done, open_storage
from nutclf.track import repairs
from nutclf.track.repairs import Finding
from nutclf.track.store import Store, sqlite_file, swept_studies, who_sweeps
from nutclf.train.feature_store import FeatureStore


@dataclass
class Tally:
    """How many things were wrong: in all, mended now, and left although the doctor could."""

    found: int = 0
    repaired: int = 0
    repairable: int = 0

    @property
    def left(self) -> int:
        return self.found - self.repaired


def examine(store: Store, features: Path, fix: bool, say: Callable[[str], None]) -> Tally:
    """Looks for everything that kills, moves and damages leave behind; makes nothing.

    With `fix` it repairs what can be, and copies databases before it changes them. `say` gets a
    line a finding, and one a repair. Raises `UserError` when there is no store that can be read.
    """
    if not store.folder.is_dir():
        raise UserError(f"There is no store {str(store.folder)!r}; name the folder with STORE=.")
    tally, copies = Tally(), store.folder / "backups" / time.strftime("%Y-%m-%d_%H%M%S")

    def treat(findings: list[Finding]) -> None:
        for finding in findings:
            tally.found += 1
            say(f"{finding.kind}: {finding.what}.")
            if finding.repair and not fix:
                tally.repairable += 1
            elif finding.repair:
                try:
                    repairs.back_up(finding.changes, copies, say)
                    say(f"  repaired: {finding.repair()}.")
                    tally.repaired += 1
                except (OSError, sqlite3.Error, SQLAlchemyError) as error:  # a full disk, say
                    say(f"  not repaired: {error}.")

    try:
        if store.tracking_uri.startswith("http"):
            say(f"{store.tracking_uri} is a server: its schema, addresses and files stay.")
            store.prepare()  # says so where it does not answer
        # One after the other: what the second reads is what the first has mended.
        for find in (repairs.find_old_schema, find_old_optuna_schema, repairs.find_moved):
            found = [] if tally.left else find(store)
            if swept := swept_studies(store):  # which relies on what the repairs change
                way = f"end the sweep of {swept[0]} first"
                found = [replace(one, what=f"{one.what}; {way}", repair=None) for one in found]
            treat(found)
        if tally.left:
            say("The other records can be judged once this is repaired.")
        else:
            store.use()
            treat(find_left_running(store))
            treat(find_gone(store))
            if _is_filled(store.tracking_uri):
                treat(repairs.find_dangling_aliases(store))
                treat(repairs.find_no_champion(store))
            treat(repairs.find_orphans(store))
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"A database in {str(store.folder)!r} cannot be read ({error}); put back a copy, such "
            "as those in backups/ in it."
        ) from error
    treat(find_broken_features(features))
    return tally


def _is_filled(url: str) -> bool:
    """Whether there is anything to ask MLflow or Optuna: in an empty place they make tables."""
    return sqlite_file(url) is None or repairs.filled_database(url) is not None


def find_old_optuna_schema(store: Store) -> list[Finding]:
    """Whether Optuna's database has the schema of the Optuna that is installed."""
    installed = optuna.storages.RDBStorage("sqlite://")  # in memory: to open an old one changes it
    head, known = installed.get_head_version(), installed.get_all_versions()
    return repairs.compare_schema(store, "Optuna", store.optuna_url, head, known, _upgrade)


def _upgrade(url: str) -> None:
    storage = optuna.storages.RDBStorage(url, skip_compatibility_check=True)
    storage.upgrade()
    storage.engine.dispose()


def find_left_running(store: Store) -> list[Finding]:
    """Studies with trials or runs that say RUNNING although no sweep is at work on them."""
    trials, runs = Counter(), Counter()
    for name, study in _optuna_studies(store).items():
        trials[name] = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if _is_filled(store.tracking_uri):
        client = store.client()
        experiments = [e.experiment_id for e in client.search_experiments(max_results=1000)]
        for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
            # The study's own, and those within: a sweep ends them.
            if run.data.tags.get("kind") in ("study", "probe", "trial", "seed"):
                runs[run.data.tags["study_name"]] += 1
    way = "no sweep is at work on it; the same `make sweep` settles that"
    return [
        Finding(
            "running", f"study {s!r}: {trials[s]} trials and {runs[s]} runs say RUNNING, and {way}"
        )
        for s in sorted(+trials | runs)
        if not who_sweeps(store, s)
    ]


def find_gone(store: Store) -> list[Finding]:
    """Experiments, and runs of studies, that were deleted; studies that one database lost."""
    found, known = [], []
    if _is_filled(store.tracking_uri):
        known = repairs.recorded_studies(store)
        found = repairs.find_deleted_experiments(store)
        for experiment_id, study, is_deleted in known:
            if not is_deleted:  # its runs come back with its experiment
                found += find_lost(store, experiment_id, study).findings(store)
    in_mlflow = {study for _, study, _ in known}
    for name, study in sorted(_optuna_studies(store).items()):
        if name in in_mlflow or not n_done(study):  # a sweep that was killed at its start
            continue
        what = f"study {name!r} is in Optuna's records, and no run of it in MLflow's"
        way = f"put the database back that was at {store.tracking_uri}, or take another NAME="
        found.append(Finding("lost", f"{what}; {way}"))
    return found


def _optuna_studies(store: Store) -> dict[str, optuna.Study]:
    if not _is_filled(store.optuna_url):
        return {}
    storage = open_storage(store.optuna_url)
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def find_broken_features(folder: Path) -> list[Finding]:
    """Entries of the feature store that are not whole; every byte of it is read for that."""
    if not folder.is_dir():
        return []
    features, found = FeatureStore(folder, 0), []
    for name, reason in features.check():
        what = f"entry {name[:8]} in {folder}: {reason}"
        found.append(Finding("features", what, partial(_discard, features, name)))
    return found


def _discard(features: FeatureStore, name: str) -> str:
    features.discard(name)
    return f"entry {name[:8]} is removed; the next sweep that needs it makes it again"
