"""How a study gains from workers: 1, 2 and 4 processes of one thread each, on this machine.

Usage: python -m benchmarks.scale DATA [ADDRESS]

With the address of a Ray cluster the workers are those of its nodes, else local processes.
"""

import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from nutclf.config import PLAIN, Recipe, SearchSpace, StudyConfig
from nutclf.process import quiet

N_WORKERS = (1, 2, 4)
N_TRIALS = 4
# One depth, one length: workers change which recipes are drawn, and each is to cost the same.
STUDY = StudyConfig(
    "scale",
    "mobilenetv2",
    SearchSpace(n_unfrozen=(20,), epochs=(6, 6), lr_schedule=("cosine",), batch_size=(32,)),
    baseline=Recipe(n_unfrozen=20, epochs=6, lr_schedule="cosine", batch_size=32),
    n_views=2,
    image_size=96,
    tta=(PLAIN.views,),
    probes=(),
    blend=(),
)


class Watched:
    """An engine, and how long the driver waits for it."""

    def __init__(self, engine):
        self._engine, self.waited, self.fits, self.beyond = engine, 0.0, 0, 0

    @property
    def n(self) -> int:
        return self._engine.n

    def submit(self, job, on_epoch):
        from nutclf.train.jobs import FitJob

        self.fits += isinstance(job, FitJob)
        return self._engine.submit(job, on_epoch)

    def cancel(self, future) -> None:
        self.beyond += 1
        self._engine.cancel(future)

    def wait(self) -> None:
        started = time.perf_counter()
        self._engine.wait()
        self.waited += time.perf_counter() - started


def start(n: int, address: str):
    """An engine of `n` workers of one thread each."""
    if address:
        from nutclf.search.ray_engine import RayCluster

        return RayCluster(address, n, 1, lambda line: None)
    from nutclf.search.engines import LocalProcesses

    for pool in ("INTRAOP", "INTEROP"):  # read by the workers
        os.environ[f"TF_NUM_{pool}_THREADS"] = "1"
    return LocalProcesses(n, lambda line: None)


def main() -> None:
    """Prints a table; the first sweep, of one trial, is not counted: it makes the features."""
    address = sys.argv[2] if len(sys.argv) > 2 else ""
    quiet()
    from nutclf.data.source import resolve
    from nutclf.search.driver import sweep
    from nutclf.track.store import Store
    from nutclf.train.feature_store import FeatureStore

    source = resolve(sys.argv[1], environ=os.environ, workdir=Path.cwd())
    print("| workers | wall time | fits a minute | driver's own time a fit | fits beyond one's |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureStore(Path(folder) / "features", 10**10)
        for number, n in enumerate((1, *N_WORKERS)):
            store = Store.at(Path(folder) / f"store{number}", {})
            with closing(start(n, address)) as engine:
                watched, started = Watched(engine), time.perf_counter()
                silent = lambda line: None  # noqa: E731
                n_trials = N_TRIALS if number else 1
                sweep(STUDY, source, store, features, watched, silent, n_trials=n_trials)
                wall = time.perf_counter() - started
            own = (wall - watched.waited) / watched.fits
            row = f"{n} | {wall:.0f} s | {watched.fits / wall * 60:.1f} | {own:.2f} s"
            if number:
                print(f"| {row} | {watched.beyond} of {watched.fits} |", flush=True)


if __name__ == "__main__":
    main()
