"""Every config is whole: it passes its own checks, and the paper's runs differ where they should."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import (
    base_config,
    bottleneck_options,
    check_config,
    differences,
    meet_weights,
    model_options,
)
from bottlefit_jax.training.stages import STAGES, create_stage

CONFIGS = Path(__file__).parents[1] / "configs"


def load(name, *arguments):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


def check(config):
    config.lock()
    check_config(config)
    name = config.teacher.name or "mobilenet_v2"
    student = models.create(name, bottleneck=bottleneck_options(config), **model_options(config))
    for name in ("stage1", "stage2"):
        create_stage(name, config.stages[name], parts=student.parts, matched=student.matched)
    return student


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_says_its_command_and_passes_its_checks(path):
    assert f"--config=configs/{path.name}" in path.read_text().split('"""')[1]
    config = load(path.stem)
    if config.teacher.classifier == "new" or not config.stages.teacher.epochs:
        config.teacher.weights = config.teacher.weights or "weights"
    config.dataset.image_size = config.dataset.image_size or 224  # the weights'
    check(config)


PAPER = [
    *itertools.product(("densenet169", "densenet201"), ("3ch", "6ch", "9ch", "12ch"), ("v2",)),
    *itertools.product(("resnet152",), ("1ch", "2ch", "3ch", "6ch", "9ch", "12ch"), ("v1", "v2", "v3")),
]


def test_one_file_holds_all_the_papers_runs():
    seen = set()
    for (model, channels, version), loss, frozen, bits in itertools.product(
        PAPER, ("ft", "kd"), ("frozen", "free"), ("8bit", "float")
    ):
        config = load("imagenet", ",".join((model, channels, version, loss, frozen, bits)))
        config.teacher.weights = "weights"
        student = check(config)
        assert student.matched == {"r": ("layer2", "layer3", "layer4")}.get(
            model[0], ("transition2", "transition3", "denseblock4")
        )
        settings = config.student.bottleneck
        assert (settings.channels, settings.bits) == (int(channels[:-2]), {"8bit": 8, "float": 0}[bits])
        stage2 = config.stages.stage2
        assert (stage2.loss, stage2.freeze_encoder) == (
            {"ft": "cross_entropy", "kd": "distillation"}[loss],
            frozen == "frozen",
        )
        seen.add(config.to_json())
    assert len(seen) == len(PAPER) * 8


def test_the_recipe_is_the_references():
    config = load("imagenet", "resnet152,12ch,kd,frozen")
    for name, optimizer, decay in (("stage1", "adam", 0.0), ("stage2", "sgd", 5e-4)):
        stage = config.stages[name]
        assert (stage.epochs, stage.batch_size, stage.optimizer, stage.learning_rate) == (10, 64, optimizer, 1e-3)
        assert (stage.schedule, tuple(stage.milestones), stage.gamma, stage.weight_decay) == (
            "multistep",
            (5,),
            0.1,
            decay,
        )
    assert (config.stages.stage2.alpha, config.stages.stage2.temperature) == (0.5, 1.0)


@pytest.mark.parametrize(("name", "word"), [("imagenet", "resnet151"), ("imagenette_mobilenet", "6ch,pitch")])
def test_an_unknown_word_is_told(name, word):
    with pytest.raises(UserError, match=f"does not know '{word}'"):
        load(name, word)


def test_mobilenets_channels_and_encoder_are_its_argument():
    for word, expected in {"3ch": (3, "bottlefit"), "12ch,patch": (12, "patch")}.items():
        bottleneck = load("imagenette_mobilenet", word).student.bottleneck
        assert (bottleneck.channels, bottleneck.design) == expected


def test_only_what_moves_no_weight_may_differ_between_two_runs_of_a_workdir():
    ours, theirs = base_config(), base_config()
    ours.dataset.workers, ours.dataset.root = 9, "elsewhere"
    assert differences(ours.to_dict(), theirs.to_dict()) == []
    ours.seed = 3
    ours.stages.stage1.learning_rate = 0.5
    assert differences(ours.to_dict(), theirs.to_dict()) == [
        "seed: 3 here, 0 there",
        "stages.stage1.learning_rate: 0.5 here, 0.001 there",
    ]


def test_the_options_are_those_of_the_models():
    options = base_config().teacher.options
    assert set(options) == {key for spec in models.MODELS.values() for key in spec.options}
    assert model_options(base_config()) == {}
    assert model_options(load("digits")) == {"width": 16}


def weights(**changes):
    return {"name": "resnet18", "options": {"width": 64}, "image_size": 32, "resize": 40, **changes}


def test_weights_win_over_the_configs_file_and_not_over_the_user():
    config = load("imagenette").lock()
    notes = meet_weights(config, weights(), "w", typed=())
    assert notes == [
        "config.teacher.options.width: 64 as in w, not the config's 32",
        "w was trained with images of 32 px; this run has 48 px",
    ]
    assert model_options(config) == {}
    config = load("imagenette").lock()
    meet_weights(config, weights(), "w", typed={"config.teacher.options.width"})
    assert model_options(config) == {"width": 32}  # told by create_networks


def test_an_image_size_of_0_is_the_weights():
    config = load("evaluate").lock()
    assert meet_weights(config, weights(), "w", typed=()) == []
    assert (config.dataset.image_size, config.dataset.resize) == (32, 40)
    config = load("evaluate").lock()
    config.dataset.image_size = 48
    assert "32 px; this run has 48" in meet_weights(config, weights(), "w", typed=())[0]
    assert (config.dataset.image_size, config.dataset.resize) == (48, 0)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("set config.teacher.weights to the folder", {"weights": ""}),
        ("the dataset's; leave config.teacher.labels out", {"labels": "labels.txt"}),
        ("config.teacher.classifier is 'mine'; it can be 'given' or 'new'", {"classifier": "mine"}),
    ],
)
def test_a_new_classifier_needs_a_body_and_nothing_else(match, change):
    config = load("own_classes")
    config.dataset.image_size = 32
    config.teacher.update({"weights": "w"} | change)
    with pytest.raises(UserError, match=match):
        check_config(config.lock())


def test_a_new_classifier_must_be_trained_and_the_students_is_no_other():
    config = load("own_classes").lock()
    config.dataset.image_size, config.teacher.weights, config.student.weights = 32, "w", "s"
    with pytest.raises(UserError, match=r"config\.student\.weights has a classifier already"):
        check_config(config)
    config.stages.teacher.epochs = 0
    with pytest.raises(UserError, match=r"config\.stages\.teacher\.epochs is 0; a new classifier must be trained"):
        check_config(config)


def test_every_stage_has_its_numbers_in_the_recipe():
    assert set(base_config().stages) == set(STAGES)
