"""Galleries: which images they choose, what stands below them, and that all of it can be read."""

from itertools import combinations

import numpy as np
import pytest

from fer_experiments.reporting import image_grids

from .helpers import all_texts, drawn, inside

NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
LONG = tuple(f"{name}, which is a rather long name" for name in NAMES)
# Image i is grey of level i: a picture tells which image it is.
IMAGES = np.full((40, 8, 8), 1, np.uint8) * np.arange(40, dtype=np.uint8)[:, None, None]


def made_up(C=7, skill=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % C
    logits = 2 * rng.normal(size=(40, C))
    logits[np.arange(40), labels] += skill
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def quote(figure):
    return [int(np.asarray(picture.get_array())[0, 0]) for picture in figure.axes[0].images]


def captions(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_ha() == "center"]


def headings(figure):
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_ha() == "left"]
    return [text.replace("\n", " ") for text in texts]


def readable(figure):
    """Every text on the canvas, none over another one."""
    texts = all_texts(figure)
    assert all(inside(figure, text) for text in texts)
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    pictures = [picture.get_window_extent() for picture in figure.axes[0].images]
    assert not any(box.overlaps(picture) for box in boxes for picture in pictures)
    return True


def test_mistakes_are_the_surest_wrong_answers_surest_first():
    labels, probabilities = made_up()
    figure = drawn(image_grids.mistakes(IMAGES, labels, probabilities, NAMES, title="t", count=5))
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    expected = wrong[np.argsort(-probabilities[wrong].max(axis=1))][:5]
    assert quote(figure) == expected.tolist()
    i = expected[0]
    k = probabilities[i].argmax()
    assert captions(figure)[0] == (
        f"{NAMES[labels[i]]}\n→ {NAMES[k]} {100 * probabilities[i, k]:.0f}\N{NO-BREAK SPACE}%"
    )
    assert headings(figure)[0].startswith(f"{len(wrong)} of 40 answers are wrong")


def test_without_mistakes_the_figure_says_so():
    labels, _ = made_up()
    figure = drawn(image_grids.mistakes(IMAGES, labels, np.eye(7)[labels], NAMES, title="t"))
    assert headings(figure) == ["None of 40 answers is wrong."]
    assert quote(figure) == []


def test_uncertain_are_those_of_the_largest_entropy():
    labels = np.array([0, 1, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    figure = drawn(
        image_grids.uncertain(IMAGES[:4], labels, probabilities, "ab", title="t", count=3)
    )
    assert quote(figure) == [1, 2, 0]
    assert "1 of the answers are right" in headings(figure)[0]


def test_disagreement_shows_what_only_one_of_the_models_names_rightly():
    labels, first = made_up()
    _, second = made_up(seed=1)
    figure = drawn(
        image_grids.disagreement(
            IMAGES, labels, first, second, NAMES, names=("vgg16", "resnet50"), title="t", count=3
        )
    )
    good, bad = first.argmax(axis=1) == labels, second.argmax(axis=1) == labels
    of_first, of_second = quote(figure)[:3], quote(figure)[3:]
    assert len(of_first) == len(of_second) == 3
    assert all(good[i] and not bad[i] for i in of_first)
    assert all(bad[i] and not good[i] for i in of_second)
    one, other = headings(figure)
    assert one.startswith(f"Only vgg16 is right: {(good & ~bad).sum()} of 40 images.")
    assert other.startswith(f"Only resnet50 is right: {(bad & ~good).sum()} of 40 images.")
    assert captions(figure)[0].startswith(f"{NAMES[labels[of_first[0]]]} ")


def test_models_that_agree_leave_the_gallery_empty():
    labels, both = made_up()
    figure = drawn(
        image_grids.disagreement(IMAGES, labels, both, both, NAMES, names=("a", "b"), title="t")
    )
    assert headings(figure) == [
        "Only a is right: 0 of 40 images.",
        "Only b is right: 0 of 40 images.",
    ]


def test_heat_maps_stand_beside_their_images_right_answers_above():
    labels, probabilities = np.array([1, 0, 0]), np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 0, 0] = 1
    figure = drawn(image_grids.heat_maps(IMAGES[:3], maps, labels, probabilities, "ab", title="t"))
    pictures = [np.asarray(picture.get_array()) for picture in figure.axes[0].images]
    assert [int(picture[4, 4, 0]) for picture in pictures] == [2, 0, 1]
    hot = pictures[1]
    assert hot.shape == (8, 17, 3)
    assert (hot[:, 8] == 255).all()
    assert hot[0, 9].max() > 60  # the only warm place
    assert (hot[1:, 9:] == 0).all()
    assert [heading.split(".")[0] for heading in headings(figure)] == ["Right answers", "Mistakes"]


@pytest.mark.parametrize(
    "names", [NAMES, LONG, NAMES[:2], LONG[:2]], ids=["7", "7 long", "2", "2 long"]
)
@pytest.mark.parametrize("gallery", ["mistakes", "uncertain", "disagreement", "heat_maps"])
def test_every_gallery_can_be_read(gallery, names):
    labels, first = made_up(len(names))
    _, second = made_up(len(names), seed=1)
    models = ("vgg16 feature-extraction baseline s0", "resnet50 feature-extraction baseline s0")
    arguments = {
        "mistakes": (IMAGES, labels, first, names),
        "uncertain": (IMAGES, labels, first, names),
        "disagreement": (IMAGES, labels, first, second, names),
        "heat_maps": (IMAGES[:20], IMAGES[:20] / 255, labels[:20], first[:20], names),
    }[gallery]
    more = {"names": models} if gallery == "disagreement" else {}
    title = f"{models[0]} · test: which images " * 3
    assert readable(drawn(getattr(image_grids, gallery)(*arguments, title=title, **more)))


def test_pictures_keep_the_form_of_their_images():
    labels, probabilities = made_up()
    wide = np.repeat(IMAGES, 2, axis=2)
    figure = drawn(image_grids.uncertain(wide, labels, probabilities, NAMES, title="t"))
    box = figure.axes[0].images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=0.01)


def test_class_names_are_no_formulas():
    labels, probabilities = made_up(2)
    figure = image_grids.mistakes(IMAGES, labels, probabilities, ("$\\bad$", "$_$"), title="t")
    assert "$" in captions(drawn(figure))[0]


def test_image_groups_show_the_first_of_each_and_say_how_many_more_there_are():
    groups = [
        image_grids.Block("Same pixels", list(IMAGES[:2]), ["train angry", "val angry"]),
        image_grids.Block(
            "Near-duplicates", list(IMAGES[2:11]), [f"train {name}" for name in LONG[:1] * 9]
        ),
    ]
    figure = drawn(image_grids.image_groups(groups, title="t"))
    assert quote(figure) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert headings(figure)[:2] == ["Same pixels", "Near-duplicates (3 more)"]
    readable(figure)
    with pytest.raises(ValueError, match="Expected a group of images"):
        image_grids.image_groups([], title="t")
