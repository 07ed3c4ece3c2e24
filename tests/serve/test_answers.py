"""The champion's answers to files, folders, and things that are no photographs."""

import shutil

import pytest
from PIL import Image

from nutclf.errors import UserError
from nutclf.evaluate.temperature import Confidence
from nutclf.serve.answers import answer_files
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.runs import Run

CLASSES = ["almonds", "pecans", "walnuts"]


@pytest.fixture(scope="module")
def answers(with_champion):
    return lambda *paths: list(answer_files(with_champion, "nutclf", paths))


def test_a_folder_is_answered_in_the_order_of_names_as_it_was_judged_in_training(
    answers, with_champion, nuts
):
    """The same photographs give the probabilities that the run recorded for them, calibrated."""
    client = with_champion.client()
    run = Run(client, Registry(client, "nutclf").at(CHAMPION).run_id)
    recorded = stored_predictions(run, "valid").set_index("path")
    confidence = Confidence.of(load_metadata(with_champion, "models:/nutclf@champion"))
    found = answers(nuts / "valid" / "pecans")
    assert [answer.path for answer in found] == [
        nuts / "valid" / "pecans" / f"{i}.png" for i in range(4)
    ]
    for answer in found:
        row = recorded.loc[[answer.path.relative_to(nuts).as_posix()]]
        expected = confidence.calibrated(row[CLASSES].to_numpy())[0]
        assert list(answer.found.probabilities) == CLASSES
        assert list(answer.found.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert next(iter(answer.found.top3)) == row["y_pred"].item()


def test_a_folder_is_searched_to_its_depth_and_litter_is_left_out(answers, tmp_path):
    for name in ("a.png", "deep/er/b.JPG", "._a.png", ".hidden/c.png", "Thumbs.db", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    Image.radial_gradient("L").save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "photo")
    (tmp_path / "README").write_text("no image")
    found = answers(tmp_path)
    names = [str(each.path.relative_to(tmp_path)) for each in found]
    assert names == ["a.png", "deep/er/b.JPG", "photo"]
    good, broken, nameless = found
    assert (good.error, broken.found, nameless.error) == (None, None, None)
    assert broken.line().startswith(f"{broken.path}: cannot be read, it is not a JPEG")


def test_links_do_not_lead_out_of_a_folder(answers, nuts, tmp_path):
    """A link that a person names is followed: it is what they mean."""
    (tmp_path / "in.png").symlink_to("real.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "out.png").symlink_to(nuts / "valid" / "pecans" / "0.png")
    (tmp_path / "outside").symlink_to(nuts / "valid")
    shutil.copy(nuts / "valid" / "pecans" / "0.png", tmp_path / "real.png")
    errors = {answer.path.name: answer.error for answer in answers(tmp_path)}
    assert list(errors) == ["in.png", "loop.png", "out.png", "real.png"]
    assert errors["in.png"] is errors["real.png"] is None
    assert "in a loop" in errors["loop.png"]
    assert "a link that leaves the data folder" in errors["out.png"]
    assert [answer.error for answer in answers(tmp_path / "out.png")] == [None]


def test_what_is_not_there_is_refused_before_anything_is_answered(with_champion, nuts, tmp_path):
    good = nuts / "valid" / "pecans" / "0.png"
    with pytest.raises(UserError, match=r"no file .*nowhere\.jpg"):
        next(answer_files(with_champion, "nutclf", [good, tmp_path / "nowhere.jpg"]))
    with pytest.raises(UserError, match="holds no images"):
        next(answer_files(with_champion, "nutclf", [good, tmp_path]))


def test_without_a_champion_the_way_to_one_is_named(with_champion, nuts):
    match = r"'nutclf-drawn' has no champion.*make sweep.*STORE=.*MODEL="
    with pytest.raises(UserError, match=match):
        next(answer_files(with_champion, "nutclf-drawn", [nuts / "valid"]))
