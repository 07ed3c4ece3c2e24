"""The notes that MLflow shows above a study and an experiment: what it is, and how to read it."""

import re
from collections.abc import Mapping

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from nutclf.track.store import Store
from nutclf.track.studies import RECIPE, StudyRecord

_EXPERIMENT = """\
**{title}**

Each study of `experiments/` is one run here, named after it, with a note that says what was \
searched and how to read it. Its trials are its child runs, with telling names: \
`t007 · 31 unfrozen · cosine` is trial 7. The best model is registered as **{model}**, alias \
`champion`.

`make ui` prints links to the trials of each study, the best one first, and to its charts; the \
menu "Views" has them, too.
"""
_TITLES = {
    "photographs": "Fine-tuned ImageNet networks on photographs",
    "drawn": "Drawn images: a demonstration. Nothing measured here holds for real nuts.",
}
_DRAWN = "**Drawn images: nothing here holds for real nuts.**\n\n"
_READING = """\
### How to read it
- **Child runs**: `t007 · …` is a trial; `probe · …` a linear model on the features of the frozen \
network, which a trial has to beat; `t007 · seed 1 · …` the winner's recipe trained from another \
seed, to see how much is luck. `FINISHED` is complete, `KILLED` pruned; a `FAILED` run \
gives the reason in its tag `reason`.
- **Columns**: `{metric}` is the objective ({direction}d). `valid_*` and `train_*` are per epoch, \
`best_*` is the model that was kept, `cv_*` is out of fold, answered as the parameter `ensemble` \
says (test-time views, and a probe blended in); `cv_accuracy_one_view` and `cv_accuracy_whole` are \
without. Only a promoted model has `test_*`: \
the test split takes no part in the search.
- **Artifacts of a trial**: `evaluation/` has confusion matrices, learning curves and every \
prediction; of the best trial also `mistakes.png` and, once promoted, `gradcam.png`.
- **Artifacts of this run**: `optuna/` Optuna's plots, `report/` the report of `make report`, \
`audit/` that of `make audit`, where they were made.{left_out}
"""


def study_note(record: StudyRecord, left_out: Mapping[str, str]) -> str:
    """Markdown for a study's run; `left_out`: Optuna's plots that were not drawn, and why."""
    best, metric, tags, params = record.best, record.objective.metric, record.tags, record.params
    judged = "out of fold" if record.judged_on == "cv" else "on the valid split"
    drawn = _DRAWN if tags["data_source"] == "drawn" else ""
    ranking = [
        f"{drawn}**Best so far: {_plain(best.name)}**, {metric} {best.value:.4f}, "
        f"accuracy {judged} {best.accuracy}. Trials: {record.counts}.\n",
        f"| | trial | {metric} | accuracy |\n|--:|:--|--:|:--|",
    ]
    for place, trial in enumerate(record.ranking[:5], start=1):
        ranking.append(f"| {place} | {_plain(trial.name)} | {trial.value:.4f} | {trial.accuracy} |")
    parts = ["\n".join([*ranking, f"\n{tags.get('winner_seeds', '')}"]).rstrip()]
    if record.versions:
        latest = record.versions[0]
        aliases = ", ".join(f"`{alias}`" for alias in latest.aliases) or "no alias"
        promoted = f"{_plain(latest.description or '')}\n\nAlias now: {aliases}."
        parts.append(f"### What was promoted\n{promoted}")
    changed = " (files differed from it)" if tags.get("git_dirty") == "true" else ""
    parts.append(f"""\
### How to reproduce it
- command: `{tags.get("command", "make sweep")}`
- commit: `{tags.get(MLFLOW_GIT_COMMIT, "unknown")}`{changed}
- data: {tags["data_source"]}, fingerprint `{tags["data_fingerprint"][:12]}`
- seed: {params.get("seed")}
- versions: {tags.get("versions", "unknown")}""")
    searched = ["### What was searched", "| | values | baseline (trial 0) |", "|:--|:--|:--|"]
    for name in RECIPE:
        if space := params.get(f"space.{name}"):
            searched.append(f"| `{name}` | {space} | {params.get(f'baseline.{name}', '')} |")
    parts.append("\n".join(searched) + f"\n\nNetwork: `{params['backbone']}`.")
    missing = "".join(f" `{name}` is left out: {why}" for name, why in left_out.items())
    direction = record.objective.direction
    parts.append(_READING.format(metric=metric, direction=direction, left_out=missing))
    return "\n\n".join(parts)


def write_study_note(record: StudyRecord, left_out: Mapping[str, str]) -> None:
    """Puts the note on the study's run."""
    record.run.tags({NOTE: study_note(record, left_out)})


def write_experiment_note(store: Store, experiment: str, kind: str) -> None:
    """Puts the note on an experiment, whose name is also the registered model's."""
    text = _EXPERIMENT.format(title=_TITLES[kind], model=experiment)
    store.client().set_experiment_tag(store.experiment_id(experiment), NOTE, text)


def _plain(text: str) -> str:
    """Text of data, a class's or a file's name in it, that must not become Markdown or a table."""
    return re.sub(r"[\\`*_\[\]<>|#]", r"\\\g<0>", text)
