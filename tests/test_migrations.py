"""What older versions stored and typed is read as it was meant, or refused by name."""

import pytest

from fer_experiments.config import FIELDS, Config
from fer_experiments.errors import ConfigError
from fer_experiments.migrations import (
    CONFIG_VERSION,
    RENAMED,
    VERSION_KEY,
    migrated,
    renamed_arguments,
)
from fer_experiments.recipes import RECIPES, resolve


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_what_is_stored_is_read_back(recipe: str, backbone: str) -> None:
    config = resolve(recipe, {"backbone": backbone, "crop": 44, "limit": 70})
    assert config.stored()[VERSION_KEY] == CONFIG_VERSION
    assert Config.from_stored(config.stored()) == config


def test_a_configuration_without_recipe_is_that_of_the_recipe_that_it_names() -> None:
    assert Config() == resolve(Config().recipe)


def test_a_configuration_of_the_first_version_means_what_it_meant() -> None:
    """`views` counted the image itself, and the head that reads the mean was called average."""
    old = {
        name: value
        for name, value in resolve("quick").flat().items()
        if name not in ("truncate_at", "augmented_copies", "head", "crop", "on_empty_class")
    }
    old |= {"cut": "block3_pool", "views": 4, "head": "average"}
    config = Config.from_stored(old)
    assert config.model.truncate_at == "block3_pool"
    assert config.features.augmented_copies == 3
    assert config.model.head == "global_average_pooling"
    assert (config.model.crop, config.data.on_empty_class) == (None, "refuse")
    assert config.recipe == "quick"


def test_before_frozen_batchnorm_could_train_it_did_not() -> None:
    assert Config.from_stored({"recipe": "quick"}).finetune.train_batchnorm is False


def test_a_field_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Received: made_up=1"):
        Config.from_stored({**Config().stored(), "made_up": 1})


def test_a_configuration_of_a_newer_version_is_refused() -> None:
    newer = {**Config().stored(), VERSION_KEY: CONFIG_VERSION + 1}
    with pytest.raises(ConfigError, match=f"version {CONFIG_VERSION + 1}, of a newer"):
        Config.from_stored(newer)


def test_params_of_runs_are_texts() -> None:
    params = {"views": "2", "cut": "none", "head": "flatten", "dataset_fingerprint": "abc"}
    assert migrated(params) == {
        "augmented_copies": 1,
        "truncate_at": "none",
        "head": "flatten",
        "dataset_fingerprint": "abc",
    }


def test_no_field_of_today_has_the_name_of_an_older_one() -> None:
    assert not {change.old for change in RENAMED} & set(FIELDS)
    assert {change.new for change in RENAMED} <= set(FIELDS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["train", "--cut", "block3_pool"], ["train", "--truncate-at", "block3_pool"]),
        (["train", "--cut=none", "--views=4"], ["train", "--truncate-at=none",
                                                 "--augmented-copies=3"]),
        (["train", "--views", "1"], ["train", "--augmented-copies", "0"]),
        (["train", "--views", "many"], ["train", "--augmented-copies", "many"]),
        (["train", "--head", "average"], ["train", "--head", "global_average_pooling"]),
        (["train", "--head=average"], ["train", "--head=global_average_pooling"]),
    ],
)  # fmt: skip
def test_old_options_are_taken_with_a_warning_each(typed: list[str], meant: list[str]) -> None:
    given, warnings = renamed_arguments(typed)
    assert given == meant
    assert len(warnings) == sum(word.startswith("--") for word in typed)


def test_what_is_no_option_stays() -> None:
    typed = ["predict", "--model", "average", "views", "--", "--cut", "4"]
    assert renamed_arguments(typed) == (typed, [])
