"""Side A: trials as `make sweep` runs them, in a new store and with no features made before.

Prints one line of JSON a trial: accuracy of its best epoch on the valid split, and where the time
went. Usage: ours.py DATA SCRATCH_FOLDER FIRST LAST
"""

import json
import sys
import time
from pathlib import Path

from nutclf.cli import quiet, seed_everything


def main() -> None:
    """Runs RECIPES[FIRST:LAST] one after another."""
    quiet()
    import optuna
    from recipes import EPOCHS, RECIPES

    from nutclf.config import SearchSpace, StudyConfig
    from nutclf.data.source import resolve
    from nutclf.model.backbones import load_backbone
    from nutclf.search.session import data_record, labelled
    from nutclf.search.space import as_parameters
    from nutclf.search.trial import RUN_ID, TrialRunner
    from nutclf.track.runs import study_run
    from nutclf.track.store import Store
    from nutclf.train.store import FeatureStore
    from nutclf.train.workbench import Workbench

    data, scratch = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    chosen = RECIPES[int(sys.argv[3]) : int(sys.argv[4])]
    space = SearchSpace(
        n_unfrozen=(0, 4, 29), epochs=(1, EPOCHS), lr_schedule=("constant", "plateau")
    )
    config = StudyConfig("benchmark", "mobilenetv2", space)
    seed_everything(config.seed)
    source = resolve(str(data), environ={}, workdir=scratch)
    backbone = load_backbone(config.backbone)
    splits = {
        split: labelled(source.folder, split, backbone.spec.image_size, print)
        for split in ("train", "valid")
    }
    features = FeatureStore(scratch / "features", int(20e9))
    bench = Workbench(config, backbone, source.folder.classes, splits, features)
    store, record = Store.at(scratch / "store", {}).prepare(), data_record(source)
    parent = study_run(store, store.experiment_id("benchmark"), config.name, record.tags)
    study = optuna.create_study(direction="minimize", pruner=optuna.pruners.NopPruner())
    runner = TrialRunner(config, bench, record, parent)
    for recipe in chosen:
        study.enqueue_trial(as_parameters(recipe, space))
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


main()
