"""A store from an older MLflow: its tables are brought to what this version reads."""

import functools

import mlflow.db
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

from nutclf.track.doctor.databases import Backups, revision, sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.liveness import workers
from nutclf.track.store import Store


def find_old_schema(store: Store, backups: Backups) -> list[Finding]:
    """Whether MLflow's database has the schema of the MLflow that is installed."""
    database = sqlite_file(store.tracking_uri)
    found = database and revision(database)
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    if found is None or found == scripts.get_current_head():
        return []
    repair = functools.partial(_upgrade, store, backups)
    known = {script.revision for script in scripts.walk_revisions()}
    return [schema_finding("MLflow", found, found in known, store, repair)]


def schema_finding(library: str, found: str, known: bool, store: Store, repair) -> Finding:
    """What to say of a database with another schema than the installed library's."""
    what = f"{library}'s database has the schema {found}"
    if not known:
        return Finding("schema", f"{what} of a newer {library} than requirements.txt names")
    if workers(store.folder):
        return Finding("schema", f"{what}, an older one, and a sweep is at work on it; end that")
    return Finding("schema", f"{what}, an older one", repair)


def _upgrade(store: Store, backups: Backups) -> str:
    backups.before_changing(store.tracking_uri)
    mlflow.db.upgrade.callback(store.tracking_uri)  # what `mlflow db upgrade` runs
    return f"MLflow's database has the schema {revision(sqlite_file(store.tracking_uri))} now"
