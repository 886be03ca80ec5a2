"""What each method changes in a config, and that all of them train as long."""

import pytest

from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.config_check import check_config
from bottlefit_jax.recipe import base_config

TRAINED = [name for name, method in METHODS.items() if method.change]


def changed(name):
    config = base_config()
    config.teacher.weights = "weights"
    config.lock()
    METHODS[name].change(config, "layer2")
    check_config(config)
    return config


def test_the_methods_stand_in_this_order():
    assert list(METHODS) == [
        *("local", "jpeg", "webp", "vanilla", "kd", "hnd", "ghnd", "bottlefit", "bottlefit-patch"),
        *("cr-bq", "autoencoder", "spinn"),
    ]


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_method_has_as_many_epochs(name):
    stages = changed(name).stages
    assert stages.stage1.epochs + stages.stage2.epochs == 20


def test_methods_differ_in_what_they_minimise_and_freeze():
    found = {}
    for name in TRAINED:
        config = changed(name)
        stage1, stage2 = config.stages.stage1, config.stages.stage2
        matched = (tuple(stage1.matched) or "all") if stage1.epochs else None
        second = (stage2.loss, stage2.freeze_encoder) if stage2.epochs else None
        found[name] = (config.student.bottleneck.design, matched, second)
    assert found == {
        "vanilla": (None, None, ("cross_entropy", False)),
        "kd": (None, None, ("distillation", False)),
        "hnd": (None, ("layer2",), None),
        "ghnd": (None, "all", None),
        "bottlefit": (None, "all", ("distillation", True)),
        "bottlefit-patch": ("patch", "all", ("distillation", True)),
        "cr-bq": ("reduction", None, ("cross_entropy", False)),
        "autoencoder": ("autoencoder", ("layer2",), ("cross_entropy", False)),
        "spinn": ("spinn", None, ("cross_entropy", False)),
    }


@pytest.mark.parametrize("name", ["vanilla", "kd", "hnd", "ghnd", "bottlefit", "bottlefit-patch"])
def test_where_the_config_has_our_encoder_only_its_own_row_does(name):
    config = base_config()
    config.student.bottleneck.design = "patch"
    METHODS[name].change(config, "layer2")
    assert config.student.bottleneck.design == ("patch" if name == "bottlefit-patch" else "bottlefit")


@pytest.mark.parametrize("name", ["vanilla", "kd", "cr-bq", "spinn"])
def test_training_from_labels_has_the_teachers_optimiser(name):
    config = changed(name)
    for key in ("optimizer", "learning_rate", "momentum", "weight_decay", "warmup_epochs"):
        assert config.stages.stage2[key] == config.stages.teacher[key]
    assert config.stages.stage2.schedule == "cosine"
