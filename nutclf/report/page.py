"""One self-contained page of a study: no script, no network, every word of the data escaped."""

from collections.abc import Mapping
from pathlib import Path

from nutclf.evaluate.mistakes import worst_mistakes
from nutclf.report.figures import history_chart, training_charts
from nutclf.report.tables import fixed, matrix, ranking, searched
from nutclf.report.thumbnails import thumbnail
from nutclf.track.report import Evidence
from nutclf.track.study_records import StudyRecord

_HERE = Path(__file__).parent
_RANKED, _MISTAKES, _SUSPECTS, _LISTED = 20, 24, 12, 10


def draw_page(
    record: StudyRecord, evidence: Evidence, importances: Mapping[str, float], root: Path
) -> str:
    """The page as HTML.

    Args:
      record: of the study.
      evidence: of its best trial.
      importances: share of each parameter, the largest first; empty where nothing can be told.
      root: folder of the data set, for the pictures.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_HERE)
    pages = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    best_epoch = evidence.metrics.get("best_epoch")
    return pages.get_template("page.html").render(
        study=record,
        searched=searched(record),
        fixed=fixed(record),
        ranking=ranking(record, _RANKED),
        history=history_chart(record),
        importances=importances,
        training=training_charts(evidence.curves, best_epoch and int(best_epoch)),
        matrices=[matrix(split, found) for split, found in evidence.matrices.items()],
        mistakes=_mistakes(evidence, root),
        gradcam=_gradcam(evidence, root),
        metrics=evidence.metrics,
        audit=evidence.audit,
        audited=_audited(evidence, root),
        listed=_LISTED,
    )


def _mistakes(evidence: Evidence, root: Path) -> list[dict]:
    if evidence.predictions is None:
        return []
    found = worst_mistakes(evidence.predictions, _MISTAKES)
    return [vars(answer) | {"picture": thumbnail(root, answer.path)} for answer in found]


def _gradcam(evidence: Evidence, root: Path) -> list[dict]:
    return [
        {
            **answer,
            "picture": thumbnail(root, answer["path"]),
            "lit": thumbnail(root, answer["path"], answer["heat"]),
        }
        for answer in evidence.gradcam
    ]


def _audited(evidence: Evidence, root: Path) -> dict[str, list]:
    """What an audit found that is worth a look."""
    if evidence.audit is None:
        return {}
    suspects = evidence.audit["label_suspects"]["suspects"][:_SUSPECTS]
    return {
        "suspects": [row | {"picture": thumbnail(root, row["path"])} for row in suspects],
        "across": [pair for pair in evidence.audit["pairs"] if pair["across_splits"]],
        "disagreeing": [pair for pair in evidence.audit["pairs"] if pair["labels_disagree"]],
    }
