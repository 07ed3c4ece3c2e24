"""Rung 1: what the untouched ImageNet classifier, which was taught no nut, says of each class."""

from collections.abc import Sequence

import keras

from nutclf.evaluate.intervals import Rate
from nutclf.evaluate.naming import names_by_class
from nutclf.model.backbones import BackboneSpec
from nutclf.model.imagenet import class_names, classify
from nutclf.search.rows import Row, aligned
from nutclf.search.rungs import NAMED_AS
from nutclf.track.runs import Run, write_json
from nutclf.train.workbench import LabelledImages

NUMBER, TITLE = 1, "as is: the untouched ImageNet classifier"
_SHOWN = 3  # names a class in the table; the JSON has them all

Names = dict[str, list[tuple[str, int]]]
"""For each class, the names its images were given and how often."""


def name_images(
    run: Run,
    spec: BackboneSpec,
    classifier: keras.Model,
    images: LabelledImages,
    classes: Sequence[str],
) -> Names:
    """Has the classifier name every image, and records the names in `run`.

    They become `imagenet_names.json` and `.md`, and a tag with the most frequent one a class.
    """
    named = classify(spec, classifier, images.pixels)
    names = names_by_class(images.labels, named, classes, class_names())
    run.params({"backbone": spec.name, "split": "train", "n_images": len(images.labels)})
    with run.artifacts() as folder:
        counts = {name: dict(found) for name, found in names.items()}
        write_json(folder / "imagenet_names.json", counts)
        (folder / "imagenet_names.md").write_text(names_table(names) + "\n", encoding="utf-8")
    often = [f"{name}: {found[0][0]}" for name, found in names.items() if found]
    run.tags({"named_most_often": "; ".join(often)})
    return names


def names_table(names: Names) -> str:
    """A Markdown table: each class, its images, and the names it was given most often."""
    cells = [["Class", "Images", "Named most often by the untouched ImageNet classifier"]]
    for name, found in names.items():
        often = ", ".join(f"{given} {count}" for given, count in found[:_SHOWN])
        cells.append([name, str(sum(count for _, count in found)), often])
    return aligned(cells)


def rows_of_names(names: Names) -> list[Row]:
    """The published misnamings and how often they happen here; then all classes together."""
    rows = []
    for name, published in NAMED_AS.items():
        if found := names.get(name):
            times, n = dict(found).get(published, 0), sum(count for _, count in found)
            here = f"{times / n:.3f}; most often {found[0][0]}"
            rows.append(
                Row(NUMBER, TITLE, f"{name} called {published}", "1 image", here, Rate(times, n))
            )
    acorns = sum(dict(found).get("acorn", 0) for found in names.values())
    n = sum(count for found in names.values() for _, count in found)
    figure = "called acorn, ImageNet's one nut"
    return [*rows, Row(NUMBER, TITLE, figure, "", f"{acorns / n:.3f}", Rate(acorns, n))]
