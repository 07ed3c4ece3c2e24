"""The page: whole without a network or a script, and hostile names are words on it."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nutclf.audit.images import audit_folder
from nutclf.config import OBJECTIVES
from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.predictions import prediction_table
from nutclf.report.page import (
    SIDE,
    Evidence,
    draw_page,
    keep_page,
    ranking,
    read_evidence,
    searched,
    thumbnail,
)
from nutclf.track.runs import write_json
from nutclf.track.studies import StudyRecord, TrialRecord, read_study

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
    Image.new("RGB", (300, 200), (90, 90, 90)).save(root / "grey.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no more")
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
        "predictions": prediction_table([PATH, "gone.png"], np.array([0, 1]), y_prob, CLASSES),
        "curves": pd.DataFrame({"train_loss": [2.0, 1.0], "valid_loss": [2.1, 1.4]}, index=[1, 2]),
        "metrics": {"best_epoch": 2.0},
        "probe": {},
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
        value
        for _, attrs in Parsed(page).tags
        for name, value in attrs.items()
        if name in ("src", "href") or (name == "xlink:href" and not value.startswith("#"))
    ]
    assert len(sources) == 4, "mistake, Grad-CAM twice, suspect"
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_what_it_says(page):
    words = Parsed(page).text
    for said in (
        "0.8000", "0.750 9 of 12", "t002", "75 %", "epochs 3 to 9", "loss", "epoch 2: 1.4000",
        "trials done 3", "valid · 1 of 2 right",
        "said walnuts & co", "0.800", "Grad-CAM", "labelled", "not there any more",
        "looks like pecans", "No model of this study is registered", "f" * 64,
    ):  # fmt: skip
        assert said in words
    assert "lr schedule" not in words, "a single choice was not searched"


def test_a_cross_validated_study_of_one_trial_on_drawn_images_without_an_audit(root):
    bare = evidence(predictions=None, curves=pd.DataFrame(), gradcam=(), audit=None,
                    metrics={"cv_ece": 0.1, "cv_ece_calibrated": 0.05, "temperature": 1.5,
                             "confidence_threshold": 0.6})  # fmt: skip
    study = replace(record(1), objective=OBJECTIVES["cv"])
    study.tags["data_source"] = "drawn"
    words = Parsed(draw_page(study, bare, {}, root)).text
    for said in ("Drawn images", "out-of-fold accuracy", "make audit",
                 "There are none", "by 0.050 at temperature 1.50; below 0.60"):  # fmt: skip
        assert said in words
    for left_out in ("Where the network looked", "What counted", "cv accuracy"):
        assert left_out not in words


def test_of_many_classes_the_page_lists_the_most_frequent_confusions(root):
    counts = np.eye(300, dtype=int) * 4
    counts[7, 9], counts[0, 299] = 3, 1
    matrix = {"classes": [f"class {i}" for i in range(300)], "matrix": counts.tolist()}
    page = draw_page(record(), evidence(matrices={"valid": matrix}), {}, root)
    words = Parsed(page).text
    assert words.index("class 7 taken for class 9: 3") < words.index("class 0 taken for class 299")
    assert "class 150" not in words
    assert len(page) < 200_000


def test_what_the_study_searched_has_more_than_one_choice():
    params = {"space.n_unfrozen": "(0, 4, 11)", "space.learning_rate": "(0.0001, 0.003)",
              "space.lr_schedule": "('step',)", "baseline.n_unfrozen": "4"}  # fmt: skip
    found = searched(replace(record(), params=params))
    assert found == {"n_unfrozen": "0, 4, 11", "learning_rate": "0.0001 to 0.003, log"}


def test_the_ranking_draws_intervals_on_one_axis():
    (first, recipe, low, mid, high), (_, _, lowest, *_) = ranking(record(), 2)
    assert (first.number, recipe) == (2, ["2"])
    assert (lowest, high) == (0, 100)
    start, end = Rate(8, 12).interval[0], Rate(9, 12).interval[1]
    expected = [100 * (share - start) / (end - start) for share in (Rate(9, 12).interval[0], 0.75)]
    assert [low, mid] == pytest.approx(expected, abs=0.1)


def pixels(address):
    head, _, data = address.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture).astype(int)


def test_a_picture_is_a_small_square_and_warm_where_a_map_says_so(root):
    plain, warm = (pixels(thumbnail(root, "grey.png", h)) for h in (None, [[1, 0], [0, 0]]))
    assert plain.shape == (SIDE, SIDE, 3)
    assert np.abs(plain - 90).max() < 3
    assert warm[5, 5, 0] - warm[5, 5, 2] > 80
    assert abs(warm[-5, -5, 0] - warm[-5, -5, 2]) < 8


@pytest.mark.parametrize("path", ["gone.png", "broken.jpg", "."])
def test_a_picture_that_cannot_be_read_is_left_out(root, path):
    assert thumbnail(root, path) == ""


@pytest.fixture
def promoted(with_champion, copy_store, tmp_path, tiny_config, source):
    """A copy of a promoted study: the store, and what it reads as."""
    store = copy_store(with_champion.folder, tmp_path / "store")
    config = replace(tiny_config, name="promoted")
    return store, read_study(store, "nutclf", config, source.data.fingerprint)


def test_the_evidence_is_what_the_best_trial_left(promoted, data_facts):
    store, study = promoted
    found = read_evidence(study)
    assert list(found.matrices) == ["valid", "test"]
    assert sum(map(sum, found.matrices["valid"]["matrix"])) == len(found.predictions) == 12
    assert found.curves.index.tolist() == [1, 2, 3]
    assert found.curves["valid_loss"].min() == pytest.approx(study.best.value)
    assert (found.gradcam, found.audit) == ((), None)
    with audit_folder(store, store.experiment_id("nutclf"), "promoted", data_facts) as (folder, _):
        write_json(folder / "audit.json", {"n_images": 48})
    assert read_evidence(study).audit == {"n_images": 48}


@pytest.mark.parametrize("name", ["promoted", "../../out", "a/b", "..", "/"])
def test_a_page_is_kept_in_the_run_and_nowhere_but_in_the_store(promoted, name):
    store, study = promoted
    path = keep_page(store, replace(study, tags=study.tags | {"study_name": name}), "<p>ä</p>")
    assert path.parent == store.folder / "reports"
    assert path.resolve() == path
    assert path.read_text(encoding="utf-8") == "<p>ä</p>"
    (file,) = store.client().list_artifacts(study.run.run_id, "report")
    assert file.path == "report/report.html"
