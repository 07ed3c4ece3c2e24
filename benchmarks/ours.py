"""Side A: trials as `make sweep` runs them, in a new store and with no features made before.

Prints one line of JSON a trial: the best accuracy on the valid split, and where the time went.
Usage: python -m benchmarks.ours DATA SCRATCH_FOLDER FIRST LAST
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.recipes import RECIPES
from benchmarks.setting import open_bench, study_of
from nutclf.config import OBJECTIVES


def main() -> None:
    """Runs RECIPES[FIRST:LAST] one after another."""
    data, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    config = study_of(RECIPES, objective=OBJECTIVES["valid"])
    source, bench = open_bench(config, data, scratch / "features")
    import optuna
    from nutclf.search.session import data_record
    from nutclf.search.space import as_parameters

    from nutclf.search.trial import RUN_ID, TrialRunner
    from nutclf.track.runs import study_run
    from nutclf.track.store import Store

    store, record = Store.at(scratch / "store", {}).prepare(), data_record(source)
    parent = study_run(store, store.experiment_id("benchmark"), config.name, record.tags)
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())
    runner = TrialRunner(config, bench, record, parent)
    for recipe in RECIPES[int(sys.argv[3]) : int(sys.argv[4])]:
        study.enqueue_trial(as_parameters(recipe, config.space))
        started, trial = time.perf_counter(), study.ask()
        outcome = runner.run(study, trial)
        if outcome.state != "COMPLETE":
            raise RuntimeError(outcome.summary)
        run_id = study.trials[-1].user_attrs[RUN_ID]
        history = store.client().get_metric_history(run_id, "valid_accuracy")
        metrics = store.client().get_run(run_id).data.metrics
        line = {"valid_accuracy": max(point.value for point in history)}
        line |= {key: value for key, value in metrics.items() if key.startswith("time_")}
        print(json.dumps(line | {"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()
