"""The study's note as Markdown: nothing in a name becomes a table or a heading."""

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.track.notes import study_note
from nutclf.track.studies import StudyRecord, TrialRecord


def note(name="t000 · 4 unfrozen", kind="photographs", left_out=()):
    tags = {"study_name": "s", "data_source": kind, "data_fingerprint": "f" * 64}
    trials = [
        TrialRecord(0, name, "0", "COMPLETE", 0.8, Rate(8, 10), {}, 1.0),
        TrialRecord(1, "t001", "1", "PRUNED", None, None, {}, 1.0),
    ]
    params = {"space.epochs": "(3, 9)", "baseline.epochs": "9", "backbone": "tiny", "seed": "0"}
    record = StudyRecord(None, tags, params, OBJECTIVES["cv"], trials, ())
    return study_note(record, dict(left_out))


def test_it_counts_the_trials_and_says_how_they_were_judged():
    text = note(left_out=[("slice.html", "too few.")])
    assert "Trials: 1 complete, 1 pruned." in text
    assert "accuracy out of fold 0.800 (8/10, 95% 0.490-0.943)" in text
    assert "| `epochs` | (3, 9) | 9 |" in text
    assert "What was promoted" not in text
    assert "`slice.html` is left out: too few." in text
    assert "Drawn" not in text


def test_drawn_images_are_called_so_first():
    assert note(kind="drawn").startswith("**Drawn images: nothing here holds")


def test_a_name_stays_a_name():
    text = note(name="a | b <img> *c* [d](e)")
    assert text.count("a \\| b \\<img\\> \\*c\\* \\[d\\](e)") == 2, "headline and table"
