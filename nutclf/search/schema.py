"""A store from an older Optuna: its tables are brought to what this version reads."""

import functools

import optuna

from nutclf.track.doctor.databases import Backups, revision, sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.doctor.schema import schema_finding
from nutclf.track.store import Store


def find_old_optuna_schema(store: Store, backups: Backups) -> list[Finding]:
    """Whether Optuna's database has the schema of the Optuna that is installed."""
    database = sqlite_file(store.optuna_url)
    found = database and revision(database)
    installed = optuna.storages.RDBStorage("sqlite://")  # in memory: to open an old one changes it
    if found is None or found == installed.get_head_version():
        return []
    known = found in installed.get_all_versions()
    repair = functools.partial(_upgrade, store, backups)
    return [schema_finding("Optuna", found, known, store, repair)]


def _upgrade(store: Store, backups: Backups) -> str:
    backups.before_changing(store.optuna_url)
    storage = optuna.storages.RDBStorage(store.optuna_url, skip_compatibility_check=True)
    storage.upgrade()
    return f"Optuna's database has the schema {storage.get_current_version()} now"
