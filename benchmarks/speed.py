"""Twelve recipes side by side: this project against what the guides lead a user to write.

Usage: make bench DATA=folder. Each side runs in a process of its own, one after the other, on an
otherwise idle machine; side A starts with an empty feature store.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from benchmarks.recipes import RECIPES


@dataclass(frozen=True)
class Side:
    """What one side took.

    Attributes:
      trials: one dict a trial, as the side printed it.
      wall_s, cpu_s: of the whole process, importing TensorFlow included.
      peak_gb: largest resident memory, 1e9 bytes.
    """

    trials: list[dict]
    wall_s: float
    cpu_s: float
    peak_gb: float

    def further(self, depth: int) -> float:
        """Median seconds of a trial of this depth, the first one of it left out."""
        pairs = zip(self.trials, RECIPES, strict=True)
        seconds = [trial["seconds"] for trial, recipe in pairs if recipe.n_unfrozen == depth]
        return sorted(seconds[1:])[len(seconds[1:]) // 2]


def measure(module: str, *arguments: str) -> Side:
    """Runs a module of this folder to its end; passes on what it prints, as it comes."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    started, trials = time.perf_counter(), []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout:
            trials.append(json.loads(line))
            print(f"  {module} {line.strip()}", flush=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{module} ended with exit code {process.returncode}")
    wall = time.perf_counter() - started
    return Side(trials, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def table(ours: Side, usual: Side) -> str:
    """Both sides in Markdown."""
    rows = [
        ("wall time, 12 trials", ours.wall_s, usual.wall_s, "s"),
        ("CPU time, 12 trials", ours.cpu_s, usual.cpu_s, "s"),
        ("peak memory", ours.peak_gb, usual.peak_gb, "GB"),
    ]
    rows += [
        (f"one more trial, {depth} layers unfrozen", ours.further(depth), usual.further(depth), "s")
        for depth in sorted({recipe.n_unfrozen for recipe in RECIPES})
    ]
    lines = ["| | nutclf | as usual | ratio |", "|---|---|---|---|"]
    for name, a, b, unit in rows:
        digits = 1 if a < 10 else 0
        lines.append(f"| {name} | {a:.{digits}f} {unit} | {b:.{digits}f} {unit} | {b / a:.1f} |")
    best = [max(trial["valid_accuracy"] for trial in side.trials) for side in (ours, usual)]
    mean = [
        sum(trial["valid_accuracy"] for trial in side.trials) / len(side.trials)
        for side in (ours, usual)
    ]
    lines.append(f"| valid accuracy, mean of 12 | {mean[0]:.3f} | {mean[1]:.3f} | |")
    lines.append(f"| valid accuracy, best of 12 | {best[0]:.2f} | {best[1]:.2f} | |")
    return "\n".join(lines)


def main() -> None:
    """Measures both sides and prints the table."""
    data, last = sys.argv[1], str(len(RECIPES))
    with tempfile.TemporaryDirectory() as scratch:
        ours = measure("ours", data, scratch, "0", last)
    usual = measure("as_usual", data, "0", last)
    print(table(ours, usual))


if __name__ == "__main__":
    main()
