import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fer_experiments.evaluation.calibration import Calibration
from fer_experiments.evaluation.metrics import Report, report
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.reporting import figures
from fer_experiments.reporting.plot_style import looks

from .helpers import all_texts, drawn, inside, on_canvas

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


def legend_texts(figure):
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def axes_texts(axes):
    return [text.get_text() for text in axes.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_importing_leaves_pyplot_and_the_tracker_alone():
    code = (
        "import sys, fer_experiments.reporting.figures\n"
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


def test_headline_scores_show_both_scores_with_intervals_and_the_majority_share():
    reports = {"vgg16": made_up_report(seed=1), "resnet50": made_up_report(seed=2, skill=2.5)}
    figure = drawn(figures.headline_scores(reports, title="t"))
    [axes] = figure.axes
    assert tick_labels(axes.yaxis) == list(reports)
    assert set(legend_texts(figure)) == {
        "accuracy, 95 % interval",
        "macro-F1, 95 % interval",
        "always the majority class",
    }
    left, right = axes.get_xlim()
    bars = iter(axes.containers)
    for judged, text in zip(reports.values(), axes_texts(axes), strict=True):
        for score, name in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
            point, _, [arms] = next(bars).lines
            i = judged.intervals[score]
            assert point.get_xdata() == pytest.approx([i.value])
            np.testing.assert_allclose(arms.get_segments()[0][:, 0], [i.low, i.high])
            assert left < judged.majority_share < i.low < i.high < right
            assert f"{name} {i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" in text
    majority = [
        segment[0, 0]
        for lines in axes.collections
        if lines.get_label() == "always the majority class"
        for segment in lines.get_segments()
    ]
    assert majority == pytest.approx([judged.majority_share for judged in reports.values()])


def test_a_class_that_nobody_finds_has_a_bar_of_0_with_its_number():
    found = made_up_report()
    lost = report(
        np.tile(np.eye(7)[3], (sum(SUPPORT), 1)), np.repeat(range(7), SUPPORT), NAMES, split="test"
    )
    for models in (1, 2, 3, 8):
        reports = {f"m{k}": found for k in range(models - 1)} | {"lost": lost}
        [axes] = drawn(figures.per_class_f1(reports, title="t")).axes
        bars = axes.containers[-1]
        assert [bar.get_height() for bar in bars][:7] == pytest.approx(
            [0, 0, 0, lost.f1[3], 0, 0, 0]
        )
        zeros = [text for text in axes.texts if text.get_text() in ("0", "0.00")]
        assert len(zeros) == 6
        for text, bar in zip(zeros, [bars[i] for i in (0, 1, 2, 4, 5, 6)], strict=True):
            assert text.xy[0] == pytest.approx(bar.get_x() + bar.get_width() / 2)


def test_a_model_has_one_colour_in_all_figures_of_a_comparison():
    labels = LONG_LABELS[:3]
    reports = {label: made_up_report(seed=k) for k, label in enumerate(labels)}
    colours = [look["color"] for look in looks(labels).values()]
    assert len(set(colours)) == 3
    bars = figures.per_class_f1(reports, title="t").axes[0].containers
    assert [bar[0].get_facecolor()[:3] for bar in bars] == [to_rgb(c) for c in colours]
    points = drawn(figures.headline_scores(reports, title="t")).axes[0].containers
    assert [point.lines[0].get_color() for point in points] == [c for c in colours for _ in "12"]
    # The second has no history.
    histories = {label: made_up_history(3) for label in (labels[0], labels[2])}
    curves = figures.learning_curves_overlaid(histories, title="t", models=labels)
    for axes in curves.axes:
        assert [line.get_color() for line in axes.lines] == [colours[0], colours[2]]
    rows = {
        (labels[1], labels[2]): Difference(value=0.1, low=0.05, high=0.15, p=0.01),
        (labels[0], labels[1]): Difference(value=-0.1, low=-0.15, high=-0.05, p=0.01),
    }
    figure = drawn(figures.differences(rows, score="macro-F1", title="t", models=labels))
    better = [bars.lines[0].get_color() for bars in figure.axes[0].containers]
    assert better == [colours[1], colours[1]]


def test_headline_scores_of_all_and_of_nothing_right():
    reports = {"all": made_up_report(skill=50), "nothing": made_up_report(skill=-50)}
    assert (reports["all"].accuracy, reports["nothing"].accuracy) == (1, 0)
    drawn(figures.headline_scores(reports, title="t"))


# Calibration and curves of one model


def made_up_bins(count=(0, 4, 16, 80), ece=0.0437):
    empty = np.asarray(count) == 0
    return Calibration(
        brier=0.3,
        confidence=np.where(empty, np.nan, [0.1, 0.3, 0.6, 0.9]),
        accuracy=np.where(empty, np.nan, [0.0, 0.5, 0.5, 0.85]),
        images=np.asarray(count),
        ece=ece,
    )


def test_reliability_shows_the_bins_with_images_and_the_ece():
    figure = drawn(figures.reliability({"as trained": made_up_bins()}, title="t"))
    [axes] = figure.axes
    points = next(line for line in axes.lines if line.get_label() == "accuracy of a bin")
    np.testing.assert_allclose(points.get_xydata(), [[0.3, 0.5], [0.6, 0.5], [0.9, 0.85]])
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.04, 0.16, 0.8])
    assert axes.get_title() == "ECE 0.044 · 100 images"
    assert "as trained" not in axes.get_title()


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_reliability_panels_say_what_they_are(panels):
    names = ["as trained", "after temperature 1.8", "ensemble of resnet50 and vgg16, five seeds"]
    figure = drawn(figures.reliability({n: made_up_bins() for n in names[:panels]}, title="t"))
    assert len(figure.axes) == panels
    assert on_canvas(figure)
    if panels > 1:
        assert figure.axes[1].get_title().startswith("after temperature 1.8\n")


def made_up_probabilities(labels, C, skill=1.5, seed=0):
    logits = np.random.default_rng(seed).normal(size=(len(labels), C))
    logits[np.arange(len(labels)), labels] += skill
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_a_curve_per_class_with_images_and_its_areas_in_the_legend():
    labels = np.repeat([0, 2], [30, 50])
    probabilities = made_up_probabilities(labels, 3)
    figure = drawn(figures.roc_and_precision_recall(labels, probabilities, "abc", title="t"))
    own, others = probabilities[labels == 0, 0], probabilities[labels != 0, 0]
    area = (own[:, None] > others).mean()
    texts = legend_texts(figure)
    assert [text[0] for text in texts] == ["a", "c"]
    assert texts[0].startswith(f"a: ROC area {area:.3f}, PR area 0.")
    roc, pr = figure.axes
    curve = next(line for line in roc.lines if line.get_label() == texts[0])
    x, y = curve.get_xydata().T
    assert np.trapezoid(y, x) == pytest.approx(area)
    curve = next(line for line in pr.lines if line.get_label() == texts[0])
    recall, precision = curve.get_xydata().T
    assert f"PR area {-(np.diff(recall) * precision[:-1]).sum():.3f}" in texts[0]


@pytest.mark.parametrize("C", [2, 7, 12])
def test_curves_of_many_classes_with_long_names_stay_apart(C):
    labels = np.arange(120) % C
    names = [f"emotion number {k} of all that were named" for k in range(C)]
    probabilities = made_up_probabilities(labels, C)
    figure = drawn(figures.roc_and_precision_recall(labels, probabilities, names, title="t"))
    assert on_canvas(figure)
    lines = [line for line in figure.axes[1].lines if line.get_label() in legend_texts(figure)]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == C


def test_curves_need_images_of_two_classes():
    labels = np.zeros(5, int)
    with pytest.raises(ValueError, match="Expected images of two classes"):
        figures.roc_and_precision_recall(labels, np.full((5, 2), 0.5), "ab", title="t")


# More comparisons of models


@pytest.mark.parametrize("models", [1, 2, 6])
def test_overlaid_curves_have_a_line_per_model_and_panel(models):
    histories = {
        label: made_up_history(5 + k, 1 + k) for k, label in enumerate(LONG_LABELS[:models])
    }
    figure = drawn(figures.learning_curves_overlaid(histories, title="t"))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "val macro-F1 (0 to 1)",
        "val loss (nats)",
    ]
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == LONG_LABELS[:models]
        assert len({line.get_color() for line in axes.lines}) == models
    last = figure.axes[1].lines[-1]
    assert list(last.get_xdata()) == list(range(models, 2 * models + 4))
    assert on_canvas(figure)


def test_overlaid_curves_of_models_that_lack_scores():
    with_val, without = made_up_history(3), [{"epoch": 1, "train/loss": 1.0}]
    figure = drawn(figures.learning_curves_overlaid({"a": with_val, "b": without}, title="t"))
    assert legend_texts(figure) == ["a"]
    with pytest.raises(ValueError, match="Expected entries with scores on val"):
        figures.learning_curves_overlaid({"b": without}, title="t")


def test_differences_show_value_interval_p_and_zero():
    rows = {
        ("a", "b"): Difference(value=0.021, low=0.004, high=0.038, p=0.0123),
        ("a", "c"): Difference(value=-0.01, low=-0.03, high=0.01, p=0.4),
        ("b", "c"): Difference(value=-0.05, low=-0.07, high=-0.03, p=0.00001),
    }
    figure = drawn(figures.differences(rows, score="macro-F1", title="t"))
    [axes] = figure.axes
    assert tick_labels(axes.yaxis) == ["a − b", "a − c", "b − c"]
    assert axes_texts(axes) == [
        "+0.021 [+0.004, +0.038]\np = 0.012",
        "−0.010 [−0.030, +0.010]\np = 0.400",
        "−0.050 [−0.070, −0.030]\np < 0.001",
    ]
    assert "macro-F1" in axes.get_xlabel()
    assert axes.get_xlim()[0] < -0.07 < 0 < axes.get_xlim()[1]
    colours = [bars.lines[0].get_color() for bars in axes.containers]
    look = looks("abc")  # of the better model; grey where neither is
    assert colours == [look["a"]["color"], figures.UNCLEAR, look["c"]["color"]]
    assert len(legend_texts(figure)) == 2
    ends = [bars.lines[2][0].get_segments()[0][:, 0].tolist() for bars in axes.containers]
    np.testing.assert_allclose(ends, [[row.low, row.high] for row in rows.values()])


@pytest.mark.parametrize("pairs", [1, 15])
def test_differences_of_models_with_long_names_stay_on_the_canvas(pairs):
    rows = {
        (LONG_LABELS[0], LONG_LABELS[1] + " " * n): Difference(value=0.1, low=0, high=0.2, p=0.2)
        for n in range(pairs)
    }
    figure = drawn(figures.differences(rows, score="accuracy", title="t"))
    assert on_canvas(figure)
    assert figure.axes[0].get_window_extent().width > 0.3 * figure.bbox.width
