"""Side A: trials as `make sweep` runs them, in a new store and with no features made before.

Prints one line of JSON a trial: the best accuracy on the valid split, and where the time went.
Usage: python -m benchmarks.ours DATA SCRATCH_FOLDER FIRST LAST
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.recipes import RECIPES
from benchmarks.setting import study_of
from nutclf.config import OBJECTIVES
from nutclf.process import quiet


def main() -> None:
    """Runs RECIPES[FIRST:LAST] one after another."""
    quiet()
    import optuna

    from nutclf.data.source import resolve
    from nutclf.search.driver import Driver, prepare
    from nutclf.search.engines import LocalProcesses
    from nutclf.search.study import as_parameters
    from nutclf.search.trial import RUN_ID, OpenStudy
    from nutclf.track.runs import DataRecord, study_run
    from nutclf.track.store import Store
    from nutclf.train.feature_store import FeatureStore

    data, scratch = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    source = resolve(str(data), environ={}, workdir=data)
    config = study_of(RECIPES, objective=OBJECTIVES["valid"])
    store, record = Store.at(scratch / "store", {}).prepare(), DataRecord.of(source)
    features = FeatureStore(scratch / "features", int(20e9))
    setting, size = prepare(config, source, store, features, _say, "pretrained")
    run = study_run(store, store.experiment_id("benchmark"), config.name, record.tags)
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())
    engine = LocalProcesses(1, _say)
    driver = Driver(OpenStudy(study, run, setting, record, size), engine, _say)
    for number, recipe in enumerate(RECIPES[int(sys.argv[3]) : int(sys.argv[4])], start=1):
        study.enqueue_trial(as_parameters(recipe, config.space))
        started = time.perf_counter()
        driver.run_trials(number)
        run_id = study.trials[-1].user_attrs[RUN_ID]
        history = store.client().get_metric_history(run_id, "valid_accuracy")
        metrics = store.client().get_run(run_id).data.metrics
        line = {"valid_accuracy": max(point.value for point in history)}
        line |= {key: value for key, value in metrics.items() if key.startswith("time_")}
        print(json.dumps(line | {"seconds": time.perf_counter() - started}), flush=True)
    engine.close()


def _say(line: str) -> None:
    """Standard output is for the measurements."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
