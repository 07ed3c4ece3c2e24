import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nutclf.evaluate.figures import HISTORY, confusion_figure, learning_curves, reliability_figure

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


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def all_inside(figure):
    """Whether everything that is drawn lies within the canvas."""
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_every_cell_of_ten_classes_is_annotated():
    matrix = np.arange(100).reshape(10, 10)
    ax = confusion_figure(matrix, NUTS, "test").axes[0]
    assert len(ax.texts) == 100
    assert [text.get_text() for text in ax.texts] == [str(count) for count in range(100)]


def test_rows_are_true_and_columns_predicted():
    ax = confusion_figure([[3, 1], [0, 4]], ["almonds", "pecans"], "test").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    one = next(text for text in ax.texts if text.get_text() == "1")
    assert one.get_position() == (1.5, 0.5)  # column pecans, first row
    assert ax.yaxis_inverted()  # the first class is the upper row
    assert [label.get_text() for label in ax.get_yticklabels()] == ["almonds", "pecans"]


def test_cells_are_shaded_by_share_of_the_true_class():
    ax = confusion_figure([[30, 10], [0, 2]], ["a", "b"], "test").axes[0]
    assert ax.collections[0].get_array().ravel().tolist() == [0.75, 0.25, 0, 1]
    assert ax.collections[0].get_clim() == (0, 1)


def test_the_colour_bar_stands_beside_the_cells():
    figure = confusion_figure(np.eye(10), NUTS, "test")
    figure.canvas.draw()
    cells, bar = (ax.get_position() for ax in figure.axes)
    assert 0 < bar.x0 - cells.x1 < 0.05 and cells.width > 0.6


def test_the_title_and_the_accuracy_are_printed():
    figure = confusion_figure([[47, 3], [0, 0]], ["a", "absent"], "Validation")
    assert [text.get_text() for text in figure.texts] == [
        "Validation",
        "accuracy 0.940 (47/50, 95% 0.838-0.979)",
    ]


def test_names_are_taken_literally():
    names = ["a$b$", "$\\frac{$", "two_words"]
    assert len(png(confusion_figure(np.eye(3), names, "$x$"))) > 1000


@pytest.mark.parametrize(
    "figure",
    [
        lambda: confusion_figure(np.full((10, 10), 116), NUTS, "Confusion matrix"),
        lambda: confusion_figure([[1, 0], [1, 1]], ["a", "a rather long class name"], "Two"),
        lambda: learning_curves(history(), 9),
        lambda: reliability_figure(np.tile([0.7, 0.3], (9, 1)), np.arange(9) % 2, "Reliability"),
    ],
)
def test_nothing_is_cut_off_and_pyplot_holds_nothing(figure):
    import matplotlib.pyplot as plt

    drawn = figure()
    assert isinstance(drawn.canvas, FigureCanvasAgg)
    assert all_inside(drawn)
    assert png(drawn).startswith(b"\x89PNG") and plt.get_fignums() == []


def test_the_header_lies_above_every_panel():
    figure = learning_curves(history(), 5)
    figure.canvas.draw()
    lowest = min(text.get_window_extent().y0 for text in figure.texts)
    assert all(ax.get_tightbbox().y1 < lowest for ax in figure.axes)


def test_curves_show_three_panels_with_the_best_epoch_marked():
    figure = learning_curves(history(), 7)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["loss", "accuracy", "learning rate"]
    for ax, column in zip(figure.axes, ("valid_loss", "valid_accuracy"), strict=False):
        kept = next(line for line in ax.lines if line.get_label() == "kept")
        assert kept.get_xydata().tolist() == [[7, history()[column][6]]]
    assert all(any(set(line.get_xdata()) == {7} for line in ax.lines) for ax in figure.axes)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 40])
def test_epochs_are_whole_numbers(n):
    for ax in learning_curves(history(n), 1).axes:
        assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_rows_are_drawn_in_the_order_of_epochs():
    figure = learning_curves(history().sample(frac=1, random_state=0), 3)
    assert list(figure.axes[0].lines[0].get_xdata()) == list(range(1, 10))


def test_the_rate_axis_is_logarithmic_only_where_the_rate_falls_tenfold():
    assert learning_curves(history(), 1).axes[2].get_yscale() == "log"
    assert learning_curves(history(rates=(1e-3, 5e-4)), 1).axes[2].get_yscale() == "linear"
    assert learning_curves(history(rates=(1e-3, 0)), 1).axes[2].get_yscale() == "linear"


@pytest.mark.parametrize("column", HISTORY)
def test_a_missing_column_is_named(column):
    with pytest.raises(ValueError, match=column):
        learning_curves(history().drop(columns=column), 1)


def test_a_best_epoch_outside_the_history_is_refused():
    with pytest.raises(ValueError, match="best_epoch 10"):
        learning_curves(history(), 10)


def test_reliability_shows_the_error_and_the_filled_bins():
    prob = np.array([[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 4)
    figure = reliability_figure(prob, np.array([0, 0, 0, 1, 0, 0, 1, 1]), "Reliability")
    points = figure.axes[0].lines[1].get_xydata()
    assert points == pytest.approx(np.array([[0.65, 0.5], [0.95, 0.75]]))
    assert "error 0.175 on 8 images" in figure.texts[1].get_text()  # (0.15 + 0.2) / 2
