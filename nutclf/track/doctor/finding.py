"""What the doctor says of a store: one thing that is wrong, and the way to mend it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      kind: a word for it: schema, moved, stale, disagreement, unpaired, alias, orphan, features.
      what: what is wrong, for a person, without a full stop.
      repair: mends it, and returns what it did, likewise; None where a person has to.
    """

    kind: str
    what: str
    repair: Callable[[], str] | None = None
