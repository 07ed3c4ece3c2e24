"""The doctor: everything that can be wrong with a store and with the features, in order, once.

What later checks rely on comes first: a schema that can be read, addresses that lead somewhere.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nutclf.errors import UserError
from nutclf.search.pairs import Pairs, find_disagreements, find_unpaired
from nutclf.search.schema import find_old_optuna_schema
from nutclf.search.stale import find_stale_runs, find_stale_trials
from nutclf.track.doctor.aliases import find_dangling_aliases
from nutclf.track.doctor.databases import Backups, sqlite_file
from nutclf.track.doctor.finding import Finding
from nutclf.track.doctor.moved import find_moved
from nutclf.track.doctor.orphans import find_orphans
from nutclf.track.doctor.schema import find_old_schema
from nutclf.track.outbox import Outbox
from nutclf.track.runs import KINDS
from nutclf.track.store import Store
from nutclf.train.feature_store import FeatureStore

Say = Callable[[str], None]


@dataclass
class Tally:
    """How many things were wrong.

    Attributes:
      found: in all.
      repaired: of those.
      repairable: of those that are still wrong, what the doctor could mend.
    """

    found: int = 0
    repaired: int = 0
    repairable: int = 0

    @property
    def left(self) -> int:
        """How many are still wrong."""
        return self.found - self.repaired


class _Round:
    """One round of checks; each finding is said, and repaired if that was asked for."""

    def __init__(self, fix: bool, say: Say):
        self.tally, self._fix, self._say = Tally(), fix, say

    def treat(self, findings: Iterable[Finding]) -> bool:
        """Whether nothing of this kind is wrong any more."""
        before = self.tally.left
        for finding in findings:
            self.tally.found += 1
            self._say(f"{finding.kind}: {finding.what}.")
            if finding.repair is None:
                continue
            if not self._fix:
                self.tally.repairable += 1
                continue
            try:
                self._say(f"  repaired: {finding.repair()}.")
                self.tally.repaired += 1
            except (OSError, sqlite3.Error) as error:  # a full disk, a store that is read-only
                self._say(f"  not repaired: {error}.")
        return self.tally.left == before


def examine(store: Store, features: Path, fix: bool, say: Say) -> Tally:
    """Looks for everything that kills, moves and damages leave behind.

    Args:
      store: of the records; nothing is made where nothing is.
      features: folder of the feature store.
      fix: repair what can be; databases are copied before they are changed.
      say: gets a line a finding, and one a repair.

    Raises:
      UserError: there is no such store, or it cannot be read at all.
    """
    if not store.folder.is_dir():
        raise UserError(f"There is no store {str(store.folder)!r}; name the folder with STORE=.")
    found, backups = _Round(fix, say), Backups(store.folder, say)
    try:
        _examine_records(store, backups, found, say)
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"A database in {str(store.folder)!r} cannot be read ({error}); put back a copy, such "
            "as those in backups/ in it."
        ) from error
    found.treat(find_broken_features(features))
    return found.tally


def _examine_records(store: Store, backups: Backups, found: _Round, say: Say) -> None:
    if store.tracking_uri.startswith("http"):
        say(f"{store.tracking_uri} is a server: its schema, addresses and files are not touched.")
        store.prepare()  # says so where it does not answer
    schemas = find_old_schema(store, backups) + find_old_optuna_schema(store, backups)
    # One after the other: what the second reads is what the first has mended.
    if not found.treat(schemas) or not found.treat(find_moved(store, backups)):
        say("The other records can be judged once this is repaired.")
        return
    store.use()
    if waiting := Outbox(store.folder / "outbox", KINDS).waiting():
        say(
            f"{waiting} records wait for MLflow's server; runs and trials can be compared after it."
        )
    else:
        for check in (find_stale_trials, find_stale_runs, find_disagreements, find_unpaired):
            found.treat(check(Pairs.read(store, backups)))
    if store.tracking_uri.startswith("http") or sqlite_file(store.tracking_uri):
        found.treat(find_dangling_aliases(store, backups))
    found.treat(find_orphans(store))


def find_broken_features(folder: Path) -> list[Finding]:
    """Entries of the feature store that are not whole; every byte of it is read for that."""
    if not folder.is_dir():
        return []
    features = FeatureStore(folder, 0)
    return [
        Finding(
            "features",
            f"entry {name[:8]} in {folder}: {reason}",
            functools.partial(_discard, features, name),
        )
        for name, reason in features.check()
    ]


def _discard(features: FeatureStore, name: str) -> str:
    features.discard(name)
    return f"entry {name[:8]} is removed; the next sweep that needs it makes it again"
