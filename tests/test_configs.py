"""Every config is whole: it passes its own checks, and the paper's runs differ where they should."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from bottlefit_jax import models
from bottlefit_jax.cli.config_command import meet_weights
from bottlefit_jax.config_check import check_config
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.inputs import stage_settings
from bottlefit_jax.recipe import (
    base_config,
    bottleneck_options,
    differences,
    model_options,
    needs_labels,
)
from bottlefit_jax.training.network_meta import NetworkMeta
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
        create_stage(name, stage_settings(config, name), student)
    return student


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_says_its_command_and_passes_its_checks(path):
    assert f"--config=configs/{path.name}" in path.read_text().split('"""')[1]
    config = load(path.stem)
    if config.teacher.classifier == "new" or not config.stages.teacher.epochs:
        config.teacher.weights = config.teacher.weights or "weights"
    if not config.dataset.name:
        config.dataset.unlabelled = ("frames",)
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
def test_an_unknown_word_of_an_argument_is_quoted(name, word):
    with pytest.raises(UserError, match=f"does not know '{word}'"):
        load(name, word)


def test_the_argument_of_mobilenets_config_is_its_channels_and_encoder():
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


def weights():
    return NetworkMeta(
        name="resnet18", num_classes=10, bottleneck=None, labels=(), options={"width": 64}, image_size=48, resize=56
    )


def test_weights_win_over_the_configs_file_and_not_over_the_user():
    config = load("imagenette").lock()
    notes = meet_weights(config, weights(), "w", typed=())
    assert notes == [
        "config.teacher.options.width: 64 as in w, not the config's 24",
        "w was trained with images of 48 px; this run has 32 px",
    ]
    assert model_options(config) == {}
    config = load("imagenette").lock()
    meet_weights(config, weights(), "w", typed={"config.teacher.options.width"})
    assert model_options(config) == {"width": 24}  # create_networks reports the contradiction


def test_an_image_size_of_0_is_the_weights():
    config = load("evaluate").lock()
    assert meet_weights(config, weights(), "w", typed=()) == []
    assert (config.dataset.image_size, config.dataset.resize) == (48, 56)
    config = load("evaluate").lock()
    config.dataset.image_size = 32
    assert "48 px; this run has 32" in meet_weights(config, weights(), "w", typed=())[0]
    assert (config.dataset.image_size, config.dataset.resize) == (32, 0)


def test_without_weights_an_image_size_of_0_is_a_mistake():
    config = load("digits").lock()
    config.dataset.update(image_size=0, resize=0)
    with pytest.raises(UserError, match=r"config\.dataset\.image_size is 0, and there are no weights to take it from"):
        check_config(config)


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


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", -1, "is -1; it must be at least 0"),
        ("student.rate.weight", -0.5, "is -0.5; it must be at least 0"),
        ("student.rate.weight", NAN, "is nan; it must be finite"),
        ("student.rate.steps", (), "is (); it must hold numbers above 0"),
        ("student.rate.steps", (1.0, 0.0), "is (1.0, 0.0); it must hold numbers above 0"),
        ("student.rate.steps", (1.0, -2.0), "is (1.0, -2.0); it must hold numbers above 0"),
        ("student.rate.steps", (1.0, "wide"), "is (1.0, 'wide'); it must hold numbers above 0"),
        ("student.rate.steps", (True,), "is (True,); it must hold numbers above 0"),
        ("student.rate.steps", (1.0, NAN), "is (1.0, nan); it must be finite"),
        ("student.rate.steps", (1.0, INF), "is (1.0, inf); it must be finite"),
        ("seed", 2**31, "is 2147483648; it must be at most 2**30"),
        ("dataset.std", (0, 0, 0), "is (0, 0, 0); each must be above 0 and at most 1"),
        ("dataset.std", (58.4, 57.1, 57.4), "so divide them by 255"),
        ("dataset.std", (0.2, NAN, 0.2), "it must be finite"),
        ("dataset.mean", (123.7, 116.3, 103.5), "is (123.7, 116.3, 103.5); each must be from 0 to 1"),
        ("dataset.mean", (123.7, 116.3, 103.5), "so divide them by 255"),
        ("dataset.mean", (0.5,), "is (0.5,); it needs three numbers"),
        ("dataset.mean", ("a", "b", "c"), "it needs three numbers"),
        ("dataset.crop_scale", (0.5,), "is (0.5,); it must be two shares of the area"),
        ("dataset.crop_scale", (0.5, 0.2), "is (0.5, 0.2); it must be two shares of the area"),
        ("dataset.resize", 200, "is 200, too small to cut 224 x 224 from it"),
        ("stages.stage2.temperature", 0.0, "is 0.0; it must be above 0"),
        ("stages.stage2.temperature", INF, "is inf; it must be finite"),
        ("stages.stage2.alpha", 2.0, "is 2.0; it must be from 0 to 1"),
        ("stages.stage1.learning_rate", -1.0, "is -1.0; it must be above 0"),
        ("stages.stage1.learning_rate", NAN, "is nan; it must be finite"),
        ("stages.teacher.momentum", 1.5, "is 1.5; it must be at least 0 and below 1"),
        ("stages.teacher.label_smoothing", 1.0, "is 1.0; it must be at least 0 and below 1"),
        ("stages.stage1.weight_decay", -5e-4, "is -0.0005; it must be at least 0"),
        ("stages.stage1.gamma", 0.0, "is 0.0; it must be above 0 and at most 1"),
        ("stages.stage1.warmup_epochs", -1, "is -1; it must be at least 0"),
        ("stages.stage1.milestones", (5, 3), "is (5, 3); it must be epochs from 1 up, each later than the one"),
        ("stages.stage1.milestones", (2.5,), "is (2.5,); it must be epochs from 1 up"),
        ("teacher.weights", "gs://bucket/teacher", "'gs://bucket/teacher' is not on this machine"),
    ],
)
def test_a_number_that_makes_no_sense_is_named_with_those_that_do(path, value, message):
    config = base_config()
    *parents, key = path.split(".")
    part = config
    for name in parents:
        part = part[name]
    part[key] = value
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert str(caught.value).startswith(f"config.{path}")
    assert message in str(caught.value)


def test_every_stage_has_its_numbers_in_the_recipe():
    assert set(base_config().stages) == set(STAGES)


@pytest.mark.parametrize(
    ("argument", "design", "channels", "size"),
    [("32ch,dct", "dct", 32, 0), ("12ch,patch,crops", "patch", 12, 128), ("12ch,bottlefit", "bottlefit", 12, 0)],
)
def test_distil_takes_channels_encoder_and_crops(argument, design, channels, size):
    config = load("distil", argument)
    assert (config.student.bottleneck.design, config.student.bottleneck.channels) == (design, channels)
    assert config.dataset.image_size == size
    assert config.stages.stage2.loss == "feature_matching"
    assert not needs_labels(config, "stage2")


def test_distil_names_an_argument_that_it_does_not_know():
    with pytest.raises(UserError, match=r"distil.py does not know '32ch'; it knows evaluate, 32ch,dct"):
        load("distil", "32ch")
