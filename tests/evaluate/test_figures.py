import io
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from nutclf.evaluate.figures import confusion_figure, learning_curves, reliability_figure

NUTS = [
    "almonds", "brazil nuts", "cashew nuts", "chestnuts", "coconuts",
    "hazelnuts", "macadamia nuts", "pecans", "pistachios", "walnuts",
]  # fmt: skip


def history(n=9, rates=(1e-3, 1e-4)):
    epoch = np.arange(1, n + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "valid_loss": 1 / epoch + 0.02 * epoch,
            "train_accuracy": 1 - 0.6 / epoch,
            "valid_accuracy": 0.9 - 0.2 / epoch,
            "learning_rate": np.where(epoch < 6, *rates),
        }
    )


def test_every_cell_of_ten_classes_is_annotated():
    ax = confusion_figure(np.arange(100).reshape(10, 10), NUTS, "test").axes[0]
    assert [text.get_text() for text in ax.texts] == [str(count) for count in range(100)]


@pytest.mark.parametrize(("n", "counts", "names"), [(30, 900, 30), (45, 0, 45), (400, 0, 0)])
def test_of_many_classes_it_says_less(n, counts, names):
    figure = confusion_figure(np.eye(n, dtype=int) * 3, [f"class {i}" for i in range(n)], "many")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert (len(ax.texts), len(ax.get_xticklabels())) == (counts, names)
    assert max(figure.get_size_inches()) < 22
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_rows_are_true_and_columns_predicted():
    ax = confusion_figure([[3, 1], [0, 4]], ["almonds", "pecans"], "test").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    one = next(text for text in ax.texts if text.get_text() == "1")
    assert one.get_position() == (1.5, 0.5)  # column pecans, first row
    assert ax.yaxis_inverted()  # the first class is the upper row
    assert [label.get_text() for label in ax.get_yticklabels()] == ["almonds", "pecans"]


def test_cells_are_shaded_by_share_of_the_true_class():
    cells = confusion_figure([[30, 10], [0, 2]], ["a", "b"], "test").axes[0].collections[0]
    assert cells.get_array().ravel().tolist() == [0.75, 0.25, 0, 1]
    assert cells.get_clim() == (0, 1)


def test_the_title_and_the_accuracy_are_printed():
    figure = confusion_figure([[47, 3], [0, 0]], ["a", "absent"], "Validation")
    assert [text.get_text() for text in figure.texts] == [
        "Validation",
        "accuracy 0.940 (47/50, 95% 0.838-0.979)",
    ]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: confusion_figure(np.full((10, 10), 116), NUTS, "Confusion matrix"),
        lambda: confusion_figure([[1, 0], [1, 1]], ["$\\frac{$", "a rather long name_"], "$x$"),
        lambda: learning_curves(history(), 9),
        lambda: reliability_figure(np.tile([0.7, 0.3], (9, 1)), np.arange(9) % 2, "Reliability"),
    ],
)
def test_nothing_is_cut_off_or_covers_the_header_and_pyplot_holds_nothing(figure):
    drawn = figure()
    drawn.savefig(io.BytesIO(), format="png")
    box, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    lowest = min(text.get_window_extent().y0 for text in drawn.texts)
    assert all(ax.get_tightbbox().y1 < lowest for ax in drawn.axes)
    assert plt.get_fignums() == []


def test_the_colour_bar_stands_beside_the_cells():
    figure = confusion_figure(np.eye(10), NUTS, "test")
    figure.canvas.draw()
    cells, bar = (ax.get_position() for ax in figure.axes)
    assert 0 < bar.x0 - cells.x1 < 0.05 and cells.width > 0.6


def test_curves_show_three_panels_in_the_order_of_epochs_with_the_best_one_marked():
    figure = learning_curves(history().sample(frac=1, random_state=0), 7)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["loss", "accuracy", "learning rate"]
    for ax, column in zip(figure.axes, ("valid_loss", "valid_accuracy"), strict=False):
        kept = next(line for line in ax.lines if line.get_label() == "kept")
        assert kept.get_xydata().tolist() == [[7, history()[column][6]]]
    assert all(any(set(line.get_xdata()) == {7} for line in ax.lines) for ax in figure.axes)
    assert list(figure.axes[0].lines[1].get_xdata()) == list(range(1, 10))


@pytest.mark.parametrize("n", [1, 2, 40])
def test_epochs_are_whole_numbers(n):
    for ax in learning_curves(history(n), 1).axes:
        assert all(float(tick).is_integer() for tick in ax.get_xticks())


@pytest.mark.parametrize(
    ("rates", "scale"), [((1e-3, 1e-4), "log"), ((1e-3, 5e-4), "linear"), ((1e-3, 0), "linear")]
)
def test_the_rate_axis_is_logarithmic_only_where_the_rate_falls_tenfold(rates, scale):
    assert learning_curves(history(rates=rates), 1).axes[2].get_yscale() == scale


def test_reliability_shows_the_error_and_the_filled_bins():
    prob = np.array([[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 4)
    figure = reliability_figure(prob, np.array([0, 0, 0, 1, 0, 0, 1, 1]), "Reliability")
    points = figure.axes[0].lines[1].get_xydata()
    assert points == pytest.approx(np.array([[0.65, 0.5], [0.95, 0.75]]))
    assert "error 0.175 on 8 images" in figure.texts[1].get_text()  # (0.15 + 0.2) / 2
