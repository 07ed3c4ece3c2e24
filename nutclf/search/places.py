"""Where a sweep reads and writes; imports no network, so that workers start in silence."""

from dataclasses import dataclass
from pathlib import Path

from nutclf.track.store import Store


@dataclass(frozen=True)
class Places:
    """Where a sweep reads and writes.

    Attributes:
      store: of the records.
      features: folder of the feature store.
      feature_budget_bytes: what that folder may hold.
    """

    store: Store
    features: Path
    feature_budget_bytes: int
