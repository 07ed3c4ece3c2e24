"""The notes that MLflow shows above a study and an experiment: what it is, and how to read it."""

from collections.abc import Mapping

from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from nutclf.track.store import Store
from nutclf.track.studies import RECIPE, StudyRecord

_SHOWN = 5  # trials in the note's table
_EXPERIMENT = """\
**{title}**

Each study of `experiments/` is one run here, named after it, with a note that says what was \
searched and how to read it. Its trials are its children, named by what they are: \
`t007 · 31 unfrozen · cosine` is trial 7. The best model is registered as **{model}**, alias \
`champion`.

`make ui` prints a link to each study's trials, the best one first.
"""
_TITLES = {
    "photographs": "Fine-tuned ImageNet networks on photographs of tree nuts",
    "drawn": "Drawn images: a demonstration. Nothing measured here holds for real nuts.",
}
_READING = """\
### How to read it
- **Runs** below this one: `t007 · …` is a trial; `t007 · seed 1 · …` the winner's recipe from \
another seed, to see how much is luck. `FINISHED` is complete, `KILLED` pruned, `FAILED` says why \
in the tag `reason`.
- **Columns**: `{metric}` is the objective ({direction}). `valid_*`, `train_*` run by epoch, \
`best_*` is the epoch that was kept, `cv_*` out of fold, `test_*` there for a promoted model only: \
the test split takes no part in the search.
- **Artifacts of a trial**: `evaluation/` has confusion matrices, learning curves and every \
prediction; of the best trial also `mistakes.png` and, once promoted, `gradcam.png`.
- **Artifacts of this run**: {artifacts}
"""


def study_note(record: StudyRecord, left_out: Mapping[str, str]) -> str:
    """Markdown for the run of a study.

    Args:
      record: of the study.
      left_out: file names of Optuna's plots that were not drawn, and why.
    """
    parts = [_headline(record), _ranking(record), _promoted(record), _reproduce(record)]
    reading = _READING.format(
        metric=record.objective.metric,
        direction=f"{record.objective.direction}d",
        artifacts=_artifacts(left_out),
    )
    return "\n\n".join(part for part in (*parts, _searched(record), reading) if part)


def write_study_note(record: StudyRecord, left_out: Mapping[str, str]) -> None:
    """Puts the note on the study's run."""
    record.run.tags({NOTE: study_note(record, left_out)})


def write_experiment_note(store: Store, experiment: str, kind: str) -> None:
    """Puts the note on an experiment, whose name is also the registered model's."""
    client, text = store.client(), _EXPERIMENT.format(title=_TITLES[kind], model=experiment)
    client.set_experiment_tag(store.experiment_id(experiment), NOTE, text)


def _headline(record: StudyRecord) -> str:
    best = record.best
    drawn = "**Drawn images: nothing here holds for real nuts.**\n\n"
    judged = "out of fold" if record.judged_on == "cv" else "on the valid split"
    return (
        f"{drawn if record.tags['data_source'] == 'drawn' else ''}"
        f"**Best so far: {_plain(best.name)}**, {record.objective.metric} {best.value:.4f}, "
        f"accuracy {judged} {best.accuracy}. Trials: {record.counts}."
    )


def _ranking(record: StudyRecord) -> str:
    lines = [f"| | trial | {record.objective.metric} | accuracy |", "|--:|:--|--:|:--|"]
    for place, trial in enumerate(record.ranking[:_SHOWN], start=1):
        lines.append(f"| {place} | {_plain(trial.name)} | {trial.value:.4f} | {trial.accuracy} |")
    spread = record.tags.get("winner_seeds", "")
    return "\n".join(lines) + (f"\n\n{spread}" if spread else "")


def _searched(record: StudyRecord) -> str:
    lines = ["### What was searched", "| | values | baseline (trial 0) |", "|:--|:--|:--|"]
    for name in RECIPE:
        if space := record.params.get(f"space.{name}"):
            lines.append(f"| `{name}` | {space} | {record.params[f'baseline.{name}']} |")
    return "\n".join(lines) + f"\n\nNetwork: `{record.params['backbone']}`."


def _promoted(record: StudyRecord) -> str:
    if not record.versions:
        return ""
    latest = record.versions[0]
    aliases = ", ".join(f"`{alias}`" for alias in latest.aliases) or "no alias"
    return f"### What was promoted\n{_plain(latest.description or '')}\n\nAlias now: {aliases}."


def _artifacts(left_out: Mapping[str, str]) -> str:
    told = "`optuna/` Optuna's plots, `report/` the report of `make report`, `audit/` that of "
    told += "`make audit`, where they were made."
    return told + "".join(f" `{name}` is left out: {why}" for name, why in left_out.items())


def _reproduce(record: StudyRecord) -> str:
    tags = record.tags
    commit, dirty = tags.get(MLFLOW_GIT_COMMIT, "unknown"), tags.get("git_dirty")
    changed = " (files differed from it)" if dirty == "true" else ""
    rows = [
        f"- command: `{tags.get('command', 'make sweep')}`",
        f"- commit: `{commit}`{changed}",
        f"- data: {tags['data_source']}, fingerprint `{tags['data_fingerprint'][:12]}`",
        f"- seed: {record.params.get('seed')}",
    ]
    rows += [f"- versions: {tags['versions']}"] if "versions" in tags else []
    return "### How to reproduce it\n" + "\n".join(rows)


def _plain(text: str) -> str:
    """Text of data, a class's or a file's name in it, that must not become Markdown or a table."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text)
