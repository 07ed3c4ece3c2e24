"""The champion's answers to files, folders, and things that are no photographs."""

import shutil
from dataclasses import replace

import pytest
from PIL import Image

from nutclf.errors import UserError
from nutclf.evaluate.temperature import Confidence
from nutclf.serve.answers import answer_files
from nutclf.track.evaluation import stored_predictions
from nutclf.track.models import load_metadata
from nutclf.track.promotion import promote
from nutclf.track.registry import CHAMPION, Registry
from nutclf.track.runs import Run


@pytest.fixture(scope="module")
def served(tmp_path_factory, migrated, begin, tiny_config, copy_store, load_split, data_facts):
    """A store with a champion that tells the three colours apart; only to be read."""
    store = copy_store(migrated, tmp_path_factory.mktemp("served") / "store")
    config = replace(tiny_config, name="served")
    study, runner = begin(store, config)
    assert runner.run(study, study.ask()).state == "COMPLETE"
    promote(store, "nutclf", "served", config.objective, load_split, data_facts.fingerprint, dict)
    return store


def answers(store, *paths):
    return list(answer_files(store, "nutclf", paths))


def test_a_file_is_answered_as_it_was_judged_in_training(served, nuts):
    """The same photograph gives the probabilities that the run recorded for it, calibrated."""
    metadata = load_metadata(served, "models:/nutclf@champion")
    run_id = Registry(served.client(), "nutclf").at(CHAMPION).run_id
    recorded = stored_predictions(Run(served.client(), run_id), "valid").set_index("path")
    for path in ("valid/almonds/0.png", "valid/walnuts/3.png"):
        (answer,) = answers(served, nuts / path)
        raw = recorded.loc[[path], ["almonds", "pecans", "walnuts"]].to_numpy()
        expected = Confidence.of(metadata).calibrated(raw)[0]
        assert list(answer.found.probabilities) == ["almonds", "pecans", "walnuts"]
        assert list(answer.found.probabilities.values()) == pytest.approx(expected, abs=1e-5)
        assert next(iter(answer.found.top3)) == recorded.loc[path, "y_pred"]


def test_a_folder_is_answered_file_by_file_in_the_order_of_names(served, nuts):
    folder = nuts / "valid" / "pecans"
    answered = answers(served, folder)
    assert [answer.path for answer in answered] == [folder / f"{i}.png" for i in range(4)]
    assert answered == [
        answer for path in sorted(folder.iterdir()) for answer in answers(served, path)
    ]


def test_a_folder_is_searched_to_its_depth_and_litter_is_left_out(served, tmp_path):
    for name in ("a.png", "deep/er/b.JPG", "._a.png", ".hidden/c.png", "Thumbs.db", "notes.txt"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    for name in ("a.png", "deep/er/b.JPG"):
        Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "folder" / name)
    answered = answers(served, tmp_path / "folder")
    assert [str(answer.path.relative_to(tmp_path / "folder")) for answer in answered] == [
        "a.png",
        "deep/er/b.JPG",
    ]
    assert all(answer.error is None for answer in answered)


def test_links_do_not_lead_out_of_a_folder(served, nuts, tmp_path):
    """A file that a person names may be a link: it is what they mean."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "in.png").symlink_to("real.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "out.png").symlink_to(nuts / "valid" / "pecans" / "0.png")
    (folder / "outside").symlink_to(nuts / "valid")
    shutil.copy(nuts / "valid" / "pecans" / "0.png", folder / "real.png")
    errors = {answer.path.name: answer.error for answer in answers(served, folder)}
    assert list(errors) == ["in.png", "loop.png", "out.png", "real.png"]
    assert errors["in.png"] is errors["real.png"] is None
    assert "in a loop" in errors["loop.png"]
    assert "a link that leaves the data folder" in errors["out.png"]
    assert [answer.error for answer in answers(served, folder / "out.png")] == [None]


def test_a_broken_file_is_named_and_the_others_are_answered(served, nuts, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"<html>404</html>")
    good = nuts / "valid" / "pecans" / "0.png"
    first, second = answers(served, broken, good)
    assert first.error
    assert first.found is None
    assert first.line().startswith(f"{broken}: cannot be read, ")
    assert second.error is None


def test_a_missing_file_is_refused_before_anything_is_answered(served, nuts, tmp_path):
    good = nuts / "valid" / "pecans" / "0.png"
    with pytest.raises(UserError, match=r"no file .*nowhere\.jpg"):
        next(answer_files(served, "nutclf", [good, tmp_path / "nowhere.jpg"]))


def test_a_folder_without_images_is_refused(served, tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        answers(served, tmp_path)


def test_without_a_champion_the_way_to_one_is_named(store, nuts):
    with pytest.raises(UserError, match=r"'nutclf' has no champion.*make sweep.*STORE=.*MODEL="):
        answers(store, nuts / "valid")


def test_another_model_than_the_champions_is_refused_by_name(served, nuts):
    with pytest.raises(UserError, match="'nutclf-drawn' has no champion"):
        list(answer_files(served, "nutclf-drawn", [nuts / "valid"]))
