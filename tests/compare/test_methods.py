"""What each method changes in a config, and that all of them train as long."""

import pytest

from bottlefit_jax.compare.methods import DCT_STEPS, METHODS, OURS, RATE_STEPS, RATE_WEIGHT
from bottlefit_jax.config_check import check_config
from bottlefit_jax.recipe import base_config

TRAINED = [name for name, method in METHODS.items() if method.change]


def changed(name):
    config = base_config()
    config.teacher.weights = "weights"
    config.lock()
    METHODS[name].apply(config, "layer2")
    check_config(config)
    return config


def test_the_methods_stand_in_this_order():
    assert list(METHODS) == [
        *("local", "jpeg", "webp", "vanilla", "kd", "hnd", "ghnd", "bottlefit", "bottlefit-patch"),
        *("bottlefit-rate", "bottlefit-patch-rate", "bottlefit-dct-rate", "entropic", "cr-bq"),
        *("autoencoder", "spinn"),
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
        "bottlefit-rate": (None, "all", ("distillation", True)),
        "bottlefit-patch-rate": ("patch", "all", ("distillation", True)),
        "bottlefit-dct-rate": ("dct", "all", ("distillation", True)),
        "entropic": ("entropic", "all", ("distillation", True)),
        "cr-bq": ("reduction", None, ("cross_entropy", False)),
        "autoencoder": ("autoencoder", ("layer2",), ("cross_entropy", False)),
        "spinn": ("spinn", None, ("cross_entropy", False)),
    }


@pytest.mark.parametrize("name", ["vanilla", "kd", "hnd", "ghnd", *OURS[:-1]])
def test_where_the_config_has_our_encoder_only_its_own_row_does(name):
    config = base_config()
    config.student.bottleneck.design = "patch"
    METHODS[name].apply(config, "layer2")
    assert config.student.bottleneck.design == ("patch" if "patch" in name else "bottlefit")


def rate(name, **given):
    config = base_config()
    config.student.rate.update(given)
    METHODS[name].apply(config, "layer2")
    return config.student.rate.weight, tuple(config.student.rate.steps)


@pytest.mark.parametrize("name", [name for name in TRAINED if not METHODS[name].rate])
def test_the_rate_term_is_off_where_a_row_does_not_name_it(name):
    assert rate(name, weight=0.5, steps=(1.0, 3.0))[0] == 0


def test_the_rate_terms_weight_and_steps_are_the_configs_or_else_the_default():
    assert {name for name, method in METHODS.items() if method.rate} == {
        *("bottlefit-rate", "bottlefit-patch-rate", "bottlefit-dct-rate", "entropic"),
    }
    for name in ("bottlefit-rate", "bottlefit-patch-rate"):
        assert rate(name) == rate(name, steps=(7.0,)) == (RATE_WEIGHT, RATE_STEPS)
        assert rate(name, weight=0.5, steps=(1.0, 3.0)) == (0.5, (1.0, 3.0))
    assert rate("entropic", weight=0.5, steps=(1.0, 3.0)) == (0.5, (1.0,))
    assert rate("entropic") == (RATE_WEIGHT, (1.0,))
    assert rate("bottlefit-dct-rate", weight=0.5, steps=(1.0, 3.0)) == (0.5, DCT_STEPS)


def test_the_entropic_student_has_its_authors_loss_and_all_features_whatever_the_config_says():
    config = base_config()
    config.stages.stage1.matched = ("layer3",)
    config.stages.stage2.update(loss="cross_entropy", alpha=0.9, freeze_encoder=False)
    METHODS["entropic"].apply(config, "layer1")
    stage2 = config.stages.stage2
    assert config.stages.stage1.matched == ()
    assert (stage2.loss, stage2.alpha, stage2.temperature, stage2.freeze_encoder) == ("distillation", 0.5, 1.0, True)


def test_no_two_methods_look_the_same():
    looks = [(method.colour, method.marker) for method in METHODS.values()]
    assert len(set(looks)) == len(looks)
    assert len({method.colour for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", ["vanilla", "kd", "cr-bq", "spinn"])
def test_training_from_labels_has_the_teachers_optimiser(name):
    config = changed(name)
    for key in ("optimizer", "learning_rate", "momentum", "weight_decay", "warmup_epochs"):
        assert config.stages.stage2[key] == config.stages.teacher[key]
    assert config.stages.stage2.schedule == "cosine"
