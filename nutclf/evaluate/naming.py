"""What a classifier with other names says of each of our classes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def names_by_class(
    y_true: np.ndarray, named: np.ndarray, classes: Sequence[str], names: Sequence[str]
) -> dict[str, list[tuple[str, int]]]:
    """For each class, how often its images were given which name, the most frequent first.

    Args:
      y_true: class ids 0..C-1, int [N].
      named: positions in `names` that the other classifier chose, int [N].
      classes: C names of ours.
      names: the other classifier's; two classes of the same name count as one.

    Returns:
      A list of (name, images) a class, empty where the class has no image; equal counts in
      alphabetical order. The counts of a class add up to its images.

    Raises:
      ValueError: the two sequences are not of one length.
    """
    y_true, named = np.asarray(y_true), np.asarray(named)
    if y_true.shape != named.shape:
        raise ValueError(f"{y_true.shape} true classes and {named.shape} names do not pair")
    counted = {}
    for label, name in enumerate(classes):
        counts = Counter(names[i] for i in named[y_true == label])
        counted[name] = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return counted
