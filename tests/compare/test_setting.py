"""What all methods share: one teacher, and as many bytes."""

import dataclasses
from pathlib import Path

import pytest

from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.compare.setting import open_setting
from bottlefit_jax.errors import UserError
from bottlefit_jax.models import create
from bottlefit_jax.recipe import bottleneck_options


def channels_of(setting, name, channels):
    config = setting.student_config(METHODS[name], seed=1, channels=channels)
    network = create("resnet18", num_classes=10, bottleneck=bottleneck_options(config), width=8)
    height, width = network.latent_size((setting.image_size, setting.image_size))
    return config.student.bottleneck.channels, height * width * network.bottleneck.channels


@pytest.mark.parametrize("name", ["vanilla", "bottlefit", "bottlefit-patch", "cr-bq", "autoencoder"])
@pytest.mark.parametrize("channels", [None, 3])
def test_a_latent_has_as_many_values_as_bottlefits_or_slightly_fewer(setting, name, channels):
    expected = channels_of(setting, "bottlefit", channels)
    own, values = channels_of(setting, name, channels)
    assert expected[0] == (channels or 6)
    assert expected[1] * own / (own + 1) < values <= expected[1]


def test_spinn_sends_the_feature_as_it_is(setting):
    assert channels_of(setting, "spinn", None) == (16, 5 * 5 * 16)


@pytest.mark.parametrize("channels", [None, 3])
def test_the_entropic_student_keeps_its_channels_and_its_authors_cut(setting, channels):
    assert channels_of(setting, "entropic", channels) == (24, 9 * 9 * 24)
    config = setting.student_config(METHODS["entropic"], seed=1, channels=channels)
    assert config.student.bottleneck.cut == "layer1"


def test_where_a_network_has_no_such_cut_the_common_one_is_taken(setting):
    network = create("mobilenet_v2", num_classes=10, bottleneck={"channels": 3})
    other = dataclasses.replace(setting, networks=dataclasses.replace(setting.networks, student=network))
    assert other.student_config(METHODS["entropic"], seed=1, channels=None).student.bottleneck.cut is None


def test_the_config_of_a_method_is_a_copy(setting):
    before = setting.config.to_dict()
    changed = setting.student_config(METHODS["spinn"], seed=5, channels=None)
    assert setting.config.to_dict() == before
    assert changed.seed == 5
    assert changed.teacher.weights == setting.config.teacher.weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.student.update(weights="student"), "config.student.weights is set"),
        (lambda config: [config.stages[name].update(epochs=0) for name in ("stage1", "stage2")], "have 0 epochs"),
    ],
)
def test_a_config_that_trains_no_student_is_refused(setting, tmp_path, change, message):
    config = setting.config.copy_and_resolve_references()
    change(config)
    with pytest.raises(UserError, match=message):
        open_setting(config, tmp_path, stop=None)


def test_a_teacher_that_is_already_in_the_workdir_is_used(setting):
    config = setting.config.copy_and_resolve_references()
    folder = Path(config.teacher.weights)
    config.teacher.weights = ""
    again = open_setting(config, folder.parent, stop=None)
    assert again.config.teacher.weights == str(folder)
    assert tuple(again.networks.mean) == (0.5, 0.5, 0.5)
