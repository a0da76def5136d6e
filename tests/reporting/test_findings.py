import numpy as np

from fer_experiments.reporting.findings import top_confusions

CONFUSION = np.array([[10, 2, 0], [1200, 3000, 2], [2, 6, 0]])


def test_the_most_frequent_mistakes_come_first_and_the_larger_share_of_equal_ones():
    assert top_confusions(CONFUSION, ("fear", "sad", "happy")) == [
        "sad taken for fear: 1,200 of 4,202 (29 %)",
        "happy taken for sad: 6 of 8 (75 %)",
        "happy taken for fear: 2 of 8 (25 %)",
        "fear taken for sad: 2 of 12 (17 %)",
        "sad taken for happy: 2 of 4,202 (0 %)",
    ]
    assert len(top_confusions(CONFUSION, ("fear", "sad", "happy"), limit=2)) == 2


def test_no_mistakes_and_classes_without_images_give_no_words():
    assert top_confusions(np.diag([5, 0]), ("a", "b")) == []
