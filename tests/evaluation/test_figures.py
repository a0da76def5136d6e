import io
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from fer_experiments.evaluation import figures
from fer_experiments.evaluation.metrics import Report, report

NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SUPPORT = (49, 6, 53, 88, 63, 59, 42)
LONG_LABELS = [
    f"{model} {stage} baseline s{seed}"
    for seed in (0, 1)
    for model in ("resnet50", "vgg16")
    for stage in ("feature-extraction", "finetune")
]


def made_up_report(support=SUPPORT, class_names=NAMES, skill=1.5, seed=0) -> Report:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(support)), support)
    logits = rng.normal(size=(len(labels), len(support)))
    logits[np.arange(len(labels)), labels] += skill
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return report(probabilities, labels, class_names, split="test")


def made_up_history(epochs, start=1):
    return [
        {
            "epoch": epoch,
            "train/loss": 2 / epoch,
            "val/loss": 2.5 / epoch,
            "train/accuracy": 1 - 0.7 / epoch,
            "val/accuracy": 0.8 - 0.5 / epoch,
            "train/macro_f1": 0.9 - 0.7 / epoch,
            "val/macro_f1": 0.7 - 0.5 / epoch,
            "learning_rate": 1e-4,
            "seconds": 12.0,
        }
        for epoch in range(start, start + epochs)
    ]


def drawn(figure: Figure) -> Figure:
    """The figure after layout, checked as every caller uses it."""
    assert isinstance(figure, Figure)
    assert 7.5 <= figure.get_figwidth() <= 9
    assert 100 <= figure.dpi <= 120
    assert figure.get_suptitle()
    FigureCanvasAgg(figure).draw()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")
    assert min(text.get_fontsize() for text in all_texts(figure)) >= 9
    return figure


def all_texts(figure):
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def legend_texts(figure):
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def axes_texts(axes):
    return [text.get_text() for text in axes.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def inside(figure, artist):
    box = artist.get_window_extent()
    canvas = figure.bbox
    return (
        box.x0 >= canvas.x0 - 1
        and box.x1 <= canvas.x1 + 1
        and box.y0 >= canvas.y0 - 1
        and box.y1 <= canvas.y1 + 1
    )


def test_importing_leaves_pyplot_and_the_tracker_alone():
    code = (
        "import sys, fer_experiments.evaluation.figures\n"
        "print([m for m in ('matplotlib.pyplot', 'mlflow', 'keras') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Learning curves


def test_learning_curves_have_a_panel_per_score_with_both_lines_and_the_best_epoch():
    figure = drawn(figures.learning_curves(made_up_history(12), title="t", best_epoch=7))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (nats)",
        "accuracy (0 to 1)",
        "macro-F1 (0 to 1)",
    ]
    for axes in figure.axes:
        lines = {line.get_label(): line for line in axes.lines}
        assert set(lines) == {"train", "val", "best epoch: 7"}
        assert list(lines["val"].get_xdata()) == list(range(1, 13))
        assert list(lines["best epoch: 7"].get_xdata()) == [7, 7]
    assert figure.axes[1].get_title() == f"val {0.8 - 0.5 / 7:.3f} at epoch 7"
    assert figure.axes[1].get_ylim() == figure.axes[2].get_ylim()
    assert sorted(legend_texts(figure)) == ["best epoch: 7", "train", "val"]


def test_train_and_val_look_the_same_in_every_panel_and_differ_from_each_other():
    figure = figures.learning_curves(made_up_history(12), title="t")
    looks = {
        label: {
            (line.get_color(), line.get_linestyle())
            for axes in figure.axes
            for line in axes.lines
            if line.get_label() == label
        }
        for label in ("train", "val")
    }
    assert len(looks["train"]) == len(looks["val"]) == 1
    assert looks["train"] != looks["val"]


@pytest.mark.parametrize(("epochs", "start"), [(1, 1), (2, 11), (5, 11), (100, 1)])
def test_epoch_ticks_are_whole_numbers(epochs, start):
    figure = drawn(figures.learning_curves(made_up_history(epochs, start), title="t"))
    for axes in figure.axes:
        left, right = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert ticks
        assert all(tick == round(tick) and start <= tick < start + epochs for tick in ticks)


def test_one_epoch_is_a_visible_marker():
    figure = drawn(figures.learning_curves(made_up_history(1), title="t", best_epoch=1))
    for axes in figure.axes:
        val = next(line for line in axes.lines if line.get_label() == "val")
        assert val.get_marker() not in ("", "None")
        assert val.get_markersize() > 0


def test_learning_curves_without_validation():
    history = [
        {key: value for key, value in entry.items() if not key.startswith("val/")}
        for entry in made_up_history(4)
    ]
    figure = drawn(figures.learning_curves(history, title="t", best_epoch=2))
    assert sorted(legend_texts(figure)) == ["best epoch: 2", "train"]
    assert not any(axes.get_title() for axes in figure.axes)


def test_a_score_that_no_entry_has_gets_no_panel_and_gaps_are_bridged():
    history = [
        {key: value for key, value in entry.items() if not key.endswith("macro_f1")}
        for entry in made_up_history(5)
    ]
    del history[2]["val/loss"]
    figure = drawn(figures.learning_curves(history, title="t"))
    assert len(figure.axes) == 2
    val = next(line for line in figure.axes[0].lines if line.get_label() == "val")
    assert list(val.get_xdata()) == [1, 2, 4, 5]


def test_a_diverged_loss_is_drawn_as_far_as_it_is_finite():
    history = made_up_history(4)
    history[2]["val/loss"] = float("nan")
    history[3]["val/loss"] = float("inf")
    figure = drawn(figures.learning_curves(history, title="t", best_epoch=3))
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_a_best_epoch_outside_the_history_is_not_marked():
    figure = drawn(figures.learning_curves(made_up_history(3, 11), title="t", best_epoch=4))
    assert sorted(legend_texts(figure)) == ["train", "val"]
    assert figure.axes[0].get_xlim()[0] > 10


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "seconds": 2.0}]])
def test_learning_curves_refuse_a_history_without_scores(history):
    with pytest.raises(ValueError, match="Expected entries with scores"):
        figures.learning_curves(history, title="t")


# Confusion


def test_confusion_prints_every_count():
    judged = made_up_report()
    figure = drawn(figures.confusion(judged, title="resnet50", shares=False))
    axes, bar = figure.axes
    assert [int(text) for text in axes_texts(axes)] == judged.confusion.ravel().tolist()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == list(NAMES)
    assert bar.get_ylabel() == "images"
    for part in (f"{judged.accuracy:.3f}", f"{judged.macro_f1:.3f}", f"{judged.images} images"):
        assert part in axes.get_title()


def test_thousands_are_separated():
    judged = made_up_report((3000, 4000), ("happy", "sad"), skill=30)
    figure = figures.confusion(judged, title="t", shares=False)
    assert axes_texts(figure.axes[0]) == ["3,000", "0", "0", "4,000"]


def test_confusion_shares_are_percent_of_the_true_class():
    judged = made_up_report()
    figure = drawn(figures.confusion(judged, title="t", shares=True))
    axes, bar = figure.axes
    cells = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(cells.sum(axis=1), 100)
    np.testing.assert_allclose(cells.diagonal(), 100 * judged.recall)
    printed = np.array([float(text) for text in axes_texts(axes)]).reshape(7, 7)
    np.testing.assert_allclose(printed, cells, atol=0.051)
    assert axes.images[0].get_clim() == (0, 100)
    assert "%" in bar.get_ylabel()


@pytest.mark.parametrize("shares", [False, True])
def test_a_class_without_images_is_a_row_of_dashes(shares):
    judged = made_up_report((49, 0, 53, 88, 63, 59, 42))
    figure = drawn(figures.confusion(judged, title="t", shares=shares))
    texts = np.array(axes_texts(figure.axes[0])).reshape(7, 7)
    assert (texts[1] == "–").all()
    assert not (np.delete(texts, 1, axis=0) == "–").any()
    assert figure.axes[0].images[0].get_array().mask[1].all()


def contrast(one, other):
    def luminance(colour):
        channels = np.asarray(to_rgb(colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("shares", [False, True])
def test_numbers_contrast_with_their_cells(shares):
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 1000, (12, 12))
    judged = made_up_report((10,) * 12, tuple(f"class {i}" for i in range(12)))
    object.__setattr__(judged, "confusion", confusion)
    axes = figures.confusion(judged, title="t", shares=shares).axes[0]
    [image] = axes.images
    for text, value in zip(axes.texts, np.asarray(image.get_array()).ravel(), strict=True):
        assert contrast(text.get_color(), image.to_rgba(value)[:3]) > 4.5


@pytest.mark.parametrize("C", [2, 12])
def test_confusion_cells_hold_their_numbers(C):
    judged = made_up_report((2000,) * C, tuple(f"emotion number {i}" for i in range(C)), skill=9)
    figure = drawn(figures.confusion(judged, title="t", shares=False))
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / C
    assert max(text.get_window_extent().width for text in axes.texts) < cell
    labels = axes.get_xticklabels() + axes.get_yticklabels()
    assert all(inside(figure, label) for label in labels)


# Sample grid


def test_sample_grid_shows_the_first_images_of_each_class_and_leaves_cells_empty():
    labels = np.array([0, 2, 0, 0, 2, 0])
    images = (
        np.full((6, 16, 16), 0, np.uint8) + np.arange(10, 70, 10, dtype=np.uint8)[:, None, None]
    )
    figure = drawn(
        figures.sample_grid(images, labels, class_names=("a", "b", "c"), title="t", per_class=3)
    )
    [axes] = figure.axes
    [picture] = axes.images
    assert picture.get_interpolation() == "nearest"
    assert tick_labels(axes.yaxis) == ["a", "b", "c"]
    mosaic = picture.get_array()
    middles = [8, 8 + 17, 8 + 2 * 17]
    found = [[mosaic[y, x] for x in middles] for y in middles]
    assert found[0] == [10, 30, 40]
    assert found[2][:2] == [20, 50]
    assert all(np.ma.is_masked(cell) for cell in [*found[1], found[2][2]])
    np.testing.assert_array_equal([round(tick) for tick in axes.get_yticks()], [8, 24, 42])


def test_sample_grid_keeps_pixels_square_and_fills_the_width():
    images = np.random.default_rng(0).integers(0, 256, (70, 48, 48), dtype=np.uint8)
    figure = drawn(figures.sample_grid(images, np.arange(70) % 7, class_names=NAMES, title="faces"))
    [axes] = figure.axes
    box = axes.get_window_extent()
    H, W = axes.images[0].get_array().shape
    assert box.height / box.width == pytest.approx(H / W, rel=0.01)
    assert box.width > 0.8 * figure.bbox.width
    assert "first 8" in axes.get_xlabel()


# Groups of images


def image_row(count, heading="same pixels,\nlabels conflict", caption="train\nangry"):
    images = np.random.default_rng(count).integers(0, 256, (count, 48, 48), dtype=np.uint8)
    return figures.ImageRow(heading=heading, images=images, captions=[caption] * count)


def test_image_groups_show_the_first_of_each_row_and_say_how_many_more_there_are():
    rows = [image_row(2), image_row(9, "near", "val\nan emotion with a long name")]
    figure = drawn(figures.image_groups(rows, title="t"))
    [axes] = figure.axes
    assert tick_labels(axes.yaxis) == ["same pixels,\nlabels conflict", "near\n2 more"]
    assert axes_texts(axes) == ["train\nangry"] * 2 + ["val\nan emotion …"] * 7
    mosaic = axes.images[0].get_array()
    for top, row in ((0, rows[0]), (len(mosaic) // 2, rows[1])):
        np.testing.assert_array_equal(mosaic[top : top + 48, 51:99], row.images[1])
    assert all(inside(figure, text) for text in all_texts(figure))
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_image_groups_need_a_row():
    with pytest.raises(ValueError, match="Expected a row of images"):
        figures.image_groups([], title="t")


# Class counts


def test_class_counts_print_every_number_and_skip_empty_splits():
    counts = {"train": [3995, 436, 0], "val": [], "test": [491, 55, 3], "more": [0, 0, 0]}
    figure = drawn(figures.class_counts(counts, class_names=("a", "b", "c"), title="t"))
    [axes] = figure.axes
    assert axes_texts(axes) == ["3,995", "436", "0", "491", "55", "3"]
    assert legend_texts(figure) == ["train: 4,431 images", "test: 549 images"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images", "class")
    assert tick_labels(axes.yaxis) == ["a", "b", "c"]
    assert all(text.get_window_extent().x1 < figure.bbox.x1 for text in axes.texts)


def test_class_counts_refuse_an_empty_data_set():
    with pytest.raises(ValueError, match="Expected a split with images"):
        figures.class_counts({"train": [0, 0]}, class_names=("a", "b"), title="t")


# Comparisons of models


def test_per_class_f1_has_a_bar_per_class_and_one_for_the_macro_f1():
    reports = {"vgg16": made_up_report(seed=1), "resnet50": made_up_report(seed=2)}
    figure = drawn(figures.per_class_f1(reports, title="t"))
    [axes] = figure.axes
    for bars, judged in zip(axes.containers, reports.values(), strict=True):
        heights = [bar.get_height() for bar in bars]
        assert heights == pytest.approx([*judged.f1, judged.macro_f1])
    assert tick_labels(axes.xaxis) == [*NAMES, "macro-F1"]
    assert axes.get_ylim() == (0, 1)
    assert axes.get_ylabel().startswith("F1")
    assert all(re.fullmatch(r"[01]\.\d\d", text) for text in axes_texts(axes))
    assert len(axes_texts(axes)) == 16


def test_per_class_f1_leaves_out_classes_without_images():
    both = {
        "a": made_up_report((49, 0, 53, 88, 63, 59, 42)),
        "b": made_up_report((49, 0, 53, 88, 63, 0, 42)),
    }
    [axes] = drawn(figures.per_class_f1(both, title="t")).axes
    assert tick_labels(axes.xaxis) == [
        "angry",
        "fear",
        "happy",
        "neutral",
        "sad",
        "surprise",
        "macro-F1",
    ]
    assert [len(bars) for bars in axes.containers] == [7, 6]


@pytest.mark.parametrize("models", [1, 2, 3, 8])
@pytest.mark.parametrize("draw", [figures.per_class_f1, figures.headline_scores])
def test_long_labels_stay_on_the_canvas_and_cover_nothing(draw, models):
    reports = {label: made_up_report(seed=k) for k, label in enumerate(LONG_LABELS[:models])}
    figure = drawn(draw(reports, title="Scores on the test split, " * 6))
    [axes], [legend] = figure.axes, figure.legends
    assert inside(figure, legend)
    assert not legend.get_window_extent().overlaps(axes.get_tightbbox())
    assert all(inside(figure, text) for text in all_texts(figure))
    assert axes.get_window_extent().width > 0.3 * figure.bbox.width
    assert axes.get_window_extent().height > 30 * models


def test_bar_numbers_do_not_run_into_each_other():
    reports = {label: made_up_report(seed=k) for k, label in enumerate(LONG_LABELS[:2])}
    [axes] = drawn(figures.per_class_f1(reports, title="t")).axes
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.x0)
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))


def test_eight_models_have_eight_colours():
    reports = {label: made_up_report(seed=k) for k, label in enumerate(LONG_LABELS)}
    [axes] = figures.per_class_f1(reports, title="t").axes
    assert len({bars[0].get_facecolor() for bars in axes.containers}) == 8


def test_headline_scores_show_accuracy_interval_macro_f1_and_majority_share():
    reports = {"vgg16": made_up_report(seed=1), "resnet50": made_up_report(seed=2, skill=2.5)}
    figure = drawn(figures.headline_scores(reports, title="t"))
    [axes] = figure.axes
    assert tick_labels(axes.yaxis) == list(reports)
    assert set(legend_texts(figure)) == {
        "accuracy, 95 % interval",
        "macro-F1",
        "always the majority class",
    }
    left, right = axes.get_xlim()
    for judged, bars, text in zip(reports.values(), axes.containers, axes_texts(axes), strict=True):
        point, _, [arms] = bars.lines
        low, high = judged.intervals["accuracy"].low, judged.intervals["accuracy"].high
        assert point.get_xdata() == pytest.approx([judged.accuracy])
        np.testing.assert_allclose(arms.get_segments()[0][:, 0], [low, high])
        assert left < judged.majority_share < low < high < right
        assert f"{judged.accuracy:.3f} [{low:.3f}, {high:.3f}]" in text
        assert f"macro-F1 {judged.macro_f1:.3f}" in text
    majority = [
        segment[0, 0]
        for lines in axes.collections
        if lines.get_label() == "always the majority class"
        for segment in lines.get_segments()
    ]
    assert majority == pytest.approx([judged.majority_share for judged in reports.values()])


def test_headline_scores_of_all_and_of_nothing_right():
    reports = {"all": made_up_report(skill=50), "nothing": made_up_report(skill=-50)}
    assert (reports["all"].accuracy, reports["nothing"].accuracy) == (1, 0)
    drawn(figures.headline_scores(reports, title="t"))
