"""Every config is whole: it passes its own checks, and the paper's runs differ where they should."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config, bottleneck_options, check_config, differences, model_options
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
    config.teacher.weights = config.teacher.weights or ("weights" if not config.stages.teacher.epochs else "")
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


def test_every_stage_has_its_numbers_in_the_recipe():
    assert set(base_config().stages) == set(STAGES)
