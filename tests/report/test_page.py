"""The page: whole without a network or a script, and hostile names are words on it."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.report.page import Evidence, draw_page
from nutclf.track.studies import StudyRecord, TrialRecord

HOSTILE = '"><script src=//e/x.js></script>'
CLASSES = [HOSTILE, "walnuts & co", "pecans"]
PATH = f"valid/{HOSTILE.replace('/', '')}/1.png"


class Parsed(HTMLParser):
    """Every tag with its attributes, and all words."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    (root / PATH).parent.mkdir(parents=True)
    Image.new("RGB", (40, 40), "orange").save(root / PATH)
    return root


def record(n=3):
    tags = {"study_name": HOSTILE, "data_source": "photographs", "data_fingerprint": "f" * 64}
    trials = [
        TrialRecord(i, f"t{i:03d} {HOSTILE}", "0", "COMPLETE", 1 - i / 10, Rate(7 + i, 12),
                    {"epochs": str(i), "lr_schedule": "step"}, 2.0)
        for i in range(n)
    ]  # fmt: skip
    params = {"space.epochs": "(3, 9)", "space.lr_schedule": "('step',)", "seed": "0", "name": "s"}
    return StudyRecord(None, tags, params, OBJECTIVES["valid"], trials, ())


def evidence(**changed):
    y_prob = np.array([[0.1, 0.8, 0.1], [0.2, 0.1, 0.7]])
    suspect = {"path": PATH, "label": HOSTILE, "looks_like": "pecans", "score": 0.01}
    pair = {"first": PATH, "second": "b", "labels": [HOSTILE, "b"], "across_splits": True,
            "labels_disagree": True}  # fmt: skip
    parts = {
        "matrices": {"valid": {"classes": CLASSES, "matrix": [[0, 1, 0], [0, 0, 0], [0, 0, 1]]}},
        "predictions": prediction_table([PATH, "gone.png"], np.array([0, 2]), y_prob, CLASSES),
        "curves": pd.DataFrame({"train_loss": [2.0, 1.0], "valid_loss": [2.1, 1.4]}, index=[1, 2]),
        "metrics": {"best_epoch": 2.0},
        "gradcam": [{"path": PATH, "y_true": HOSTILE, "y_pred": "pecans", "confidence": 0.5,
                     "heat": [[0, 1], [0, 0]]}],
        "audit": {"n_images": 2, "classes": CLASSES, "unreadable": [], "mistyped": [], "odd": [],
                  "pairs": [pair], "label_suspects": {"judged_by": "x", "skipped": "",
                  "n_images": 2, "suspects": [suspect]}},
    }  # fmt: skip
    return Evidence(**(parts | changed))


@pytest.fixture(scope="module")
def page(root):
    return draw_page(record(), evidence(), {HOSTILE: 0.75, "epochs": 0.25}, root)


def test_names_stay_words(page):
    parsed = Parsed(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    assert parsed.text.count(HOSTILE) >= 8
    assert "walnuts & co" in parsed.text


def test_nothing_is_fetched(page):
    sources = [
        attrs[name] for _, attrs in Parsed(page).tags for name in ("src", "href") if name in attrs
    ]
    assert len(sources) == 4, "mistake, Grad-CAM twice, suspect"
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_what_it_says(page):
    words = Parsed(page).text
    for said in (
        "0.8000", "0.750 9 of 12", "t002", "75 %", "epochs 3 to 9", "loss", "valid · 1 of 2 right",
        "said walnuts & co", "0.800", "Grad-CAM", "labelled",
        "looks like pecans", "No model of this study is registered", "f" * 64,
    ):  # fmt: skip
        assert said in words
    assert "lr schedule" not in words, "a single choice was not searched"


def test_the_best_trial_is_the_first_line(page):
    words = Parsed(page).text
    ranking = words[words.index("Ranking") : words.index("How the search went")]
    assert ranking.index("t002") < ranking.index("t001") < ranking.index("t000")


def test_a_picture_that_is_gone_leaves_its_place(root):
    y_prob = np.array([[0.1, 0.8, 0.1]])
    lost = prediction_table(["gone.png"], np.array([0]), y_prob, CLASSES)
    assert (
        "not there any more"
        in Parsed(draw_page(record(), evidence(predictions=lost), {}, root)).text
    )


def test_a_study_of_one_trial_that_nobody_audited(root):
    bare = evidence(predictions=None, curves=pd.DataFrame(), gradcam=(), audit=None, metrics={})
    words = Parsed(draw_page(record(1), bare, {}, root)).text
    assert "Too few finished trials" in words
    assert "make audit" in words
    assert "Where the network looked" not in words
