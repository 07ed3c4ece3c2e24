"""How time and memory grow with the number of training images: 1, 2 and 4 times the data set.

Each size runs in a process of its own: two views of every image through the frozen network, then
two epochs of the last 29 layers. Usage: python -m benchmarks.growth DATA
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.setting import open_bench, study_of
from nutclf.config import Recipe

RECIPE = Recipe(n_unfrozen=29, epochs=2, lr_schedule="constant")
FACTORS = (1, 2, 4)


def enlarge(data: Path, target: Path, factor: int) -> None:
    """A copy of the data set whose training images are there `factor` times, turned and encoded
    anew, so that no two files are equal."""
    from PIL import Image

    shutil.copytree(data, target)
    for path in sorted((data / "train").rglob("*.jpg")):
        with Image.open(path) as image:
            for turn in range(1, factor):
                name = f"{path.stem}-{turn}.jpg"
                turned = image.convert("RGB").rotate(90 * turn)
                turned.save(target / path.relative_to(data).with_name(name), quality=90)


def one(data: Path, scratch: Path) -> None:
    """What a process of its own does: features and one fit."""
    _, bench = open_bench(study_of([RECIPE]), data, scratch)
    fitted = bench.fit(RECIPE)
    n = len(bench.splits["train"].labels)
    print(f"{n} {fitted.seconds_features:.1f} {fitted.seconds_train:.1f}")


def main() -> None:
    """Prints a line a size."""
    if len(sys.argv) == 3:
        one(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    print("| images | features | training | whole process | peak memory |")
    print("|---|---|---|---|---|")
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as folder:
            data, features = Path(folder) / "data", Path(folder) / "features"
            enlarge(Path(sys.argv[1]), data, factor)
            command = [sys.executable, "-m", "benchmarks.growth", str(data), str(features)]
            started = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                said = process.stdout.read().split()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            wall = time.perf_counter() - started
        peak = usage.ru_maxrss * 1024 / 1e9
        row = f"| {said[0]} | {said[1]} s | {said[2]} s | {wall:.0f} s | {peak:.2f} GB |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
