"""Schedules, decay, averages: against what they are meant to be, on one weight."""

import keras
import numpy as np
import pytest

from fer_experiments.training.optimizers import LoopConfig


def rates(plan: LoopConfig, steps: int) -> list[float]:
    optimizer = plan.build(steps)
    variable = keras.Variable(np.zeros(1, dtype=np.float32))
    optimizer.build([variable])
    found = []
    for _ in range(plan.epochs * steps):
        found.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.ones(1)])
    return found


def test_cosine_rises_in_the_warm_up_and_falls_to_0() -> None:
    found = rates(
        LoopConfig(learning_rate=0.1, schedule="cosine", warmup_epochs=1.0, epochs=5), steps=10
    )
    assert found[0] == pytest.approx(0)
    assert found[5] == pytest.approx(0.05)
    assert found[10] == pytest.approx(0.1)
    assert found[30] == pytest.approx(0.05)
    assert found[-1] < 0.001
    assert np.all(np.diff(found[:11]) > 0)
    assert np.all(np.diff(found[10:]) < 0)


def test_a_constant_rate_stays() -> None:
    assert set(rates(LoopConfig(learning_rate=0.25, epochs=2), steps=3)) == {0.25}


def test_plateau_halves_the_rate_each_time_that_nothing_improves() -> None:
    plan = LoopConfig(learning_rate=0.8, schedule="plateau", epochs=20)
    assert plan.plateau_learning_rate([0.1, 0.2, 0.2, 0.1]) == pytest.approx(0.8)
    assert plan.plateau_learning_rate([0.1, 0.2, 0.2, 0.1, 0.2]) == pytest.approx(0.4)
    assert plan.plateau_learning_rate(
        [0.1, 0.2, 0.2, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1]
    ) == pytest.approx(0.2)
    assert LoopConfig().plateau_learning_rate([0.1]) is None


def test_training_is_over_after_all_epochs_or_without_patience() -> None:
    plan = LoopConfig(epochs=5, patience=2)
    assert not plan.is_finished([])
    assert not plan.is_finished([0.1, 0.2, 0.1])
    assert plan.is_finished([0.1, 0.2, 0.1, 0.2])
    assert plan.is_finished([0.1, 0.2, 0.3, 0.4, 0.5])
    assert not LoopConfig(epochs=5).is_finished([0.5, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_decay_spares_biases_and_batch_normalisation(kind: str) -> None:
    optimizer = LoopConfig(optimizer=kind, learning_rate=0.1, weight_decay=0.5).build(1)
    variables = [
        keras.Variable(np.ones(1, dtype=np.float32), name=name)
        for name in ("kernel", "bias", "gamma", "beta")
    ]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(1)] * 4)
    values = [float(np.asarray(v)[0]) for v in variables]
    assert values == pytest.approx([0.95, 1, 1, 1])


def test_a_layer_can_learn_at_a_share_of_the_rate() -> None:
    layers = [keras.layers.Dense(1, use_bias=False, name=name) for name in ("block1", "head")]
    for layer in layers:
        layer.build((None, 1))
    variables = [layer.kernel for layer in layers]
    before = [float(np.asarray(v)[0, 0]) for v in variables]
    optimizer = LoopConfig(
        optimizer="sgd", learning_rate=0.1, layer_multipliers={"block1": 0.25}
    ).build(1)
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones((1, 1))] * 2)
    after = [float(np.asarray(v)[0, 0]) for v in variables]
    moved = [b - a for a, b in zip(after, before, strict=True)]
    assert moved[0] == pytest.approx(moved[1] / 4)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_layer_decays_at_its_share_of_the_rate(kind: str) -> None:
    """Decay is the rate times the weight: of a layer with a quarter of the rate, a quarter."""
    layers = [keras.layers.Dense(1, name=name) for name in ("block1", "head")]
    for layer in layers:
        layer.build((None, 1))
        layer.kernel.assign([[1.0]])
        layer.bias.assign([1.0])
    plan = LoopConfig(
        optimizer=kind, learning_rate=0.1, weight_decay=0.5, layer_multipliers={"block1": 0.25}
    )
    optimizer = plan.build(1)
    variables = [variable for layer in layers for variable in (layer.kernel, layer.bias)]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables])
    values = [float(np.asarray(variable).squeeze()) for variable in variables]
    assert values == pytest.approx([1 - 0.25 * 0.1 * 0.5, 1, 1 - 0.1 * 0.5, 1])


def test_shares_of_the_rate_without_decay_decay_nothing() -> None:
    layer = keras.layers.Dense(1, name="block1")
    layer.build((None, 1))
    before = np.array(layer.kernel)
    optimizer = LoopConfig(
        optimizer="sgd", learning_rate=0.1, layer_multipliers={"block1": 0.25}
    ).build(1)
    optimizer.build([layer.kernel])
    optimizer.apply([keras.ops.zeros((1, 1))])
    np.testing.assert_array_equal(np.asarray(layer.kernel), before)


@pytest.mark.parametrize(
    "kind, moved",
    [
        ("adam", [-0.1, -0.2]),  # the rate, whatever the gradient's size
        ("adamw", [-0.1, -0.2]),
        ("sgd", [-0.19, -0.461]),  # Nesterov: 1 + 0.9, then 0.9 of what was, and so on
    ],
)
def test_each_optimizer_moves_as_its_name_says(kind: str, moved: list[float]) -> None:
    optimizer = LoopConfig(optimizer=kind, learning_rate=0.1).build(1)
    variable = keras.Variable(np.zeros(1, dtype=np.float32))
    optimizer.build([variable])
    found = []
    for _ in moved:
        optimizer.apply([keras.ops.ones(1)])
        found.append(float(np.asarray(variable)[0]))
    assert found == pytest.approx(moved, rel=1e-3)


def test_the_moving_average_of_a_short_phase_reaches_back_over_a_tenth_of_it() -> None:
    assert LoopConfig(ema=0.999, epochs=2).build(100).ema_momentum == pytest.approx(0.95)
    assert LoopConfig(ema=0.999, epochs=200).build(100).ema_momentum == 0.999
