import pytest

from fer_experiments.config import FIELDS, Config, per_backbone
from fer_experiments.errors import ConfigError
from fer_experiments.recipes import RECIPES, resolve


def test_flat_and_back_is_the_same_configuration() -> None:
    config = resolve("demo", {"learning_rate": 3e-4, "limit": 70})
    assert Config.from_stored(config.flat()) == config


def test_text_from_the_command_line_becomes_the_fields_type() -> None:
    config = resolve(None, {"learning_rate": "3e-4", "epochs": "4", "flip": "no", "limit": "none"})
    assert config.head_training.learning_rate == 3e-4
    assert config.head_training.epochs == 4
    assert config.augmentation.flip is False
    assert config.data.limit is None


def test_seed_zero_is_a_seed() -> None:
    assert resolve(None, {"seed": "0"}).fit.seed == 0


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("learning_rate", "abc", "a number"),
        ("learning_rate", "nan", "a number"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", -1, "above 0"),
        ("epochs", 0, "at least 1"),
        ("epochs", "2.5", "a whole number"),
        ("dropout", 1.0, "at most 0.95"),
        ("split", "random", "auto, official, given, holdout"),
        ("flip", "maybe", "true or false"),
        ("dataset", " ", "text"),
        ("seed", -1, "at least 0"),
        ("dataset", "x" * 10_000 + "\n", None),
    ],
)
def test_values_that_break_a_rule_are_refused_in_one_line(
    name: str, value: object, rule: str | None
) -> None:
    if rule is None:
        assert resolve(None, {name: value}).flat()[name]
        return
    with pytest.raises(ConfigError) as refused:
        resolve(None, {name: value})
    message = str(refused.value)
    assert rule in message
    assert "Received: " in message
    assert name in message
    assert "\n" not in message


def test_unknown_recipe_and_field_are_refused() -> None:
    with pytest.raises(ConfigError, match="notebook, baseline, quick, tuned, best, demo"):
        resolve("notbook")
    with pytest.raises(ConfigError, match="Received: lr=1"):
        resolve(None, {"lr": 1})


def test_notebook_is_the_notebooks_recipe() -> None:
    flat = resolve("notebook").flat()
    assert {
        "split": "holdout",
        "val_fraction": 0.2,
        "input_scaling": "unit",
        "rotation": 20.0,
        "shift": 0.2,
        "flip": True,
        "zoom": 0.0,
        "head_units": 256,
        "dropout": 0.5,
        "head_batchnorm": False,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "epochs": 10,
        "batch_size": 32,
        "unfreeze_layers": 4,
        "finetune_learning_rate": 1e-5,
        "finetune_epochs": 5,
        "train_batchnorm": True,  # ResNet50's last four layers hold one
        "keep_epoch": "last",
    }.items() <= flat.items()


def test_baseline_differs_from_notebook_in_scaling_kept_epoch_and_cache_only() -> None:
    notebook, baseline = resolve("notebook").flat(), resolve("baseline").flat()
    differing = {name for name in notebook if notebook[name] != baseline[name]}
    assert differing == {"recipe", "input_scaling", "keep_epoch", "cache"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_preset_says_how_to_run_it(name: str) -> None:
    assert "fer main" in (RECIPES[name].__doc__ or "")
    assert resolve(name).recipe == name


def test_a_cut_may_differ_per_backbone() -> None:
    cut = "vgg16:block3_pool, resnet50:conv4_block6_out"
    assert per_backbone(cut, "vgg16") == "block3_pool"
    assert per_backbone(cut, "resnet50") == "conv4_block6_out"
    assert per_backbone(cut, "tiny") == "none"
    assert per_backbone("block3_pool", "vgg16") == "block3_pool"


def test_every_field_has_a_help_text() -> None:
    assert all(field.metadata["help"] for _, field in FIELDS.values())
