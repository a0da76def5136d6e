import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from fer_experiments.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    at_the_end,
    calibration,
    fit_temperature,
)

N, C = 4000, 7


def calibrated(seed: int = 0, scale: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels that were drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(scale * rng.normal(size=(N, C)), axis=1)
    return probabilities, np.array([rng.choice(C, p=row) for row in probabilities])


PROBABILITIES, LABELS = calibrated()


def softened(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return softmax(np.log(probabilities) / temperature, axis=1)


def test_brier_is_scikit_learns() -> None:
    assert calibration(PROBABILITIES, LABELS).brier == pytest.approx(
        reference.brier_score_loss(LABELS, PROBABILITIES, labels=np.arange(C), scale_by_half=False)
    )


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_is_the_sum_over_bins_written_out(bins: int) -> None:
    top, right = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == LABELS
    expected = 0.0
    for b in range(bins):
        inside = (top > b / bins) & (top <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert calibration(PROBABILITIES, LABELS, bins).ece == pytest.approx(expected)


def test_the_reliability_diagram_is_scikit_learns() -> None:
    found = calibration(PROBABILITIES, LABELS, bins=10)
    right = PROBABILITIES.argmax(axis=1) == LABELS
    accuracy, confidence = calibration_curve(right, PROBABILITIES.max(axis=1), n_bins=10)
    some = found.images > 0
    np.testing.assert_allclose(found.accuracy[some], accuracy)
    np.testing.assert_allclose(found.confidence[some], confidence)
    assert found.images.sum() == N
    assert np.isnan(found.accuracy[~some]).all()


def test_edges_of_confidence_fall_into_a_bin() -> None:
    found = calibration(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]), bins=2)
    np.testing.assert_array_equal(found.images, [1, 1])
    assert found.ece == pytest.approx(0.5 * 0.5)
    assert calibration(np.array([[1 + 1e-7, 0.0]]), np.array([0])).images[-1] == 1


def test_calibrated_probabilities_have_little_error_and_temperature_1() -> None:
    assert calibration(PROBABILITIES, LABELS).ece < 0.03
    assert fit_temperature(PROBABILITIES, LABELS) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_temperature_that_spoilt_a_model_is_found_and_undone(temperature: float) -> None:
    spoilt = softened(PROBABILITIES, 1 / temperature)
    best = fit_temperature(PROBABILITIES, LABELS)
    assert fit_temperature(spoilt, LABELS) == pytest.approx(temperature * best, rel=1e-3)
    np.testing.assert_allclose(softened(spoilt, temperature), PROBABILITIES, atol=1e-9)
    assert calibration(spoilt, LABELS).ece > 3 * calibration(PROBABILITIES, LABELS).ece


def test_no_other_temperature_has_a_lower_log_loss() -> None:
    best = fit_temperature(PROBABILITIES, LABELS)
    losses = [
        reference.log_loss(LABELS, softened(PROBABILITIES, t))
        for t in (best, 0.99 * best, 1.01 * best, 0.1, 10.0)
    ]
    assert losses[0] == min(losses)


def test_models_that_never_or_always_err_end_near_the_bounds() -> None:
    certain = np.eye(C)[LABELS] * 0.8 + 0.2 / C
    assert COLDEST <= fit_temperature(certain, LABELS) < 2 * COLDEST  # the loss is 0 from there on
    wrong = np.eye(C)[(LABELS + 1) % C] * 0.8 + 0.2 / C
    assert fit_temperature(wrong, LABELS) == pytest.approx(HOTTEST, rel=0.01)


def test_a_temperature_at_an_end_of_its_range_says_what_that_means() -> None:
    certain = np.eye(C)[LABELS] * 0.8 + 0.2 / C
    wrong = np.eye(C)[(LABELS + 1) % C] * 0.8 + 0.2 / C
    assert "end of its range (0.05): the model names every" in str(
        at_the_end(fit_temperature(certain, LABELS))
    )
    assert "end of its range (20): on val" in str(at_the_end(fit_temperature(wrong, LABELS)))
    assert at_the_end(fit_temperature(PROBABILITIES, LABELS)) is None
    for temperature in (0.2, 1.0, 5.0, 19.0):
        assert at_the_end(temperature) is None


def test_probabilities_of_exactly_0_and_1_are_taken() -> None:
    one_hot = np.eye(C, dtype=np.float32)[np.where(np.arange(N) % 5, LABELS, 0)]
    assert 1 < fit_temperature(one_hot, LABELS) <= HOTTEST


def test_one_image_of_one_class() -> None:
    found = calibration(np.ones((1, 1)), np.zeros(1, dtype=int))
    assert (found.ece, found.brier) == (0, 0)
    assert np.isfinite(fit_temperature(np.ones((1, 1)), np.zeros(1, dtype=int)))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected probabilities"):
        calibration(np.ones((2, 3)), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="Expected probabilities"):
        fit_temperature(np.ones((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="Received: bins=0"):
        calibration(PROBABILITIES, LABELS, bins=0)
