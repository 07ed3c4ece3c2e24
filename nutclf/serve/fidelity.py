"""How a file that was made of a network compares with it: answers, size and time."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutclf.evaluate.intervals import Rate
from nutclf.model.litert import Runner

_TIMED = 50  # photographs whose times count; earlier ones warm up


@dataclass(frozen=True)
class Exported:
    """A file, and how it compares with the Keras network.

    Attributes:
      file: where it lies.
      megabytes: its size, in millions of bytes.
      on_test, on_valid: photographs on which both give the same class.
      difference: largest difference of a probability, over both splits.
      milliseconds: median time of one photograph on this machine.
    """

    file: Path
    megabytes: float
    on_test: Rate
    on_valid: Rate
    difference: float
    milliseconds: float

    def line(self) -> str:
        """For a terminal."""
        return (
            f"{self.file}: {self.megabytes:.1f} MB, {self.milliseconds:.1f} ms a photograph here; "
            f"same class as Keras on {self.on_test} test and {self.on_valid} valid photographs, "
            f"probabilities within {self.difference:.2g}"
        )

    def metrics(self, kind: str) -> dict[str, float]:
        """As they are logged on the champion's run."""
        values = {
            "agreement": self.on_test.share,
            "valid_agreement": self.on_valid.share,
            "difference": self.difference,
            "megabytes": self.megabytes,
            "ms": self.milliseconds,
        }
        return {f"export_{kind}_{name}": value for name, value in values.items()}


def compare(
    file: Path,
    run: Runner,
    unseen: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> Exported:
    """Runs a file on photographs, one by one.

    Args:
      file: what `run` runs.
      run: see `Runner`.
      unseen: photographs of "test" and "valid", each uint8 [N, S, S, 3], N >= 1.
      expected: the network's probabilities of them, each [N, n_classes].
    """
    same, difference, seconds = {}, 0.0, []
    for split, pixels in unseen.items():
        found = []
        for photograph in pixels:
            started = time.perf_counter()
            found.append(run(photograph[None])[0])
            seconds.append(time.perf_counter() - started)
        y_prob = np.stack(found)
        agreed = y_prob.argmax(axis=1) == expected[split].argmax(axis=1)
        same[split] = Rate(int(agreed.sum()), len(agreed))
        difference = max(difference, float(np.abs(y_prob - expected[split]).max()))
    middle = float(np.median(seconds[-_TIMED:])) * 1000
    return Exported(
        file, file.stat().st_size / 1e6, same["test"], same["valid"], difference, middle
    )
