"""The study's note as Markdown: nothing in a name becomes a table or a heading."""

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.track.notes import study_note
from nutclf.track.studies import StudyRecord, TrialRecord


def record(name="t000 · 4 unfrozen", kind="photographs"):
    tags = {"study_name": "s", "data_source": kind, "data_fingerprint": "f" * 64}
    trials = [
        TrialRecord(0, name, "0", "COMPLETE", 0.8, Rate(8, 10), {}, 1.0),
        TrialRecord(1, "t001", "1", "PRUNED", None, None, {}, 1.0),
        TrialRecord(2, "t002", "2", "FAIL", None, None, {}, 1.0),
    ]
    params = {"space.epochs": "(3, 9)", "baseline.epochs": "9", "backbone": "tiny", "seed": "0"}
    return StudyRecord(None, tags, params, OBJECTIVES["cv"], trials, ())


def test_it_counts_the_trials_and_says_how_they_were_judged():
    note = study_note(record(), {})
    assert "Trials: 1 complete, 1 pruned, 1 failed." in note
    assert "accuracy out of fold 0.800 (8/10, 95% 0.490-0.943)" in note
    assert "| `epochs` | (3, 9) | 9 |" in note
    assert "What was promoted" not in note


def test_drawn_images_are_called_so_first():
    assert study_note(record(kind="drawn"), {}).startswith("**Drawn images: nothing here holds")
    assert "Drawn" not in study_note(record(), {})


def test_a_name_stays_a_name():
    note = study_note(record(name="a | b <img> *c* [d](e)"), {})
    assert "a \\| b \\<img\\> \\*c\\* \\[d\\](e)" in note


def test_a_plot_that_is_missing_has_its_reason():
    assert "`slice.html` is left out: too few." in study_note(record(), {"slice.html": "too few."})
