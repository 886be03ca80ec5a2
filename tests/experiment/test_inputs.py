"""The inputs of a run: classes and weights that match the config or do not, and workdirs."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.compare import designs  # noqa: F401  it registers the designs of other methods
from bottlefit_jax.config_check import check_config
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.images import class_names, describe_data, images_of_stage, open_source, open_training
from bottlefit_jax.experiment.inputs import (
    claim_workdir,
    create_networks,
    create_stages,
    needs_calibration,
    stages_to_run,
)
from bottlefit_jax.experiment.measurements import Measurements
from bottlefit_jax.experiment.results import resolved
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.recipe import BOTTLENECK, IMAGENET_MEAN, base_config
from bottlefit_jax.training.checkpoint import load_variables, save_variables
from bottlefit_jax.training.progress import RunLog
from bottlefit_jax.training.sharding import create_mesh, to_host
from bottlefit_jax.training.stages import Role
from tests.data.images import make_folder


@pytest.fixture
def config():
    config = base_config()
    config.teacher.name = "resnet18"
    config.teacher.options = {"width": 8}
    config.dataset.image_size = 32
    config.student.bottleneck.channels = 3
    return config.lock()


def test_the_datasets_classes_are_matched_with_the_teachers_by_name(config, teacher):
    config.teacher.weights = str(teacher)
    networks = create_networks(config, ["thing 11", "n00000003"])
    assert networks.class_indices == (11, 3)
    assert networks.num_classes == 12
    with pytest.raises(UserError, match="thing 99"):
        create_networks(config, ["thing 99", "thing 1"])


def test_labels_from_a_file_replace_the_teachers_own(config, teacher, tmp_path):
    config.teacher.weights = str(teacher)
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(f"name{i}" for i in range(12)))
    config.teacher.labels = str(names)
    assert create_networks(config, ["name2"]).class_indices == (2,)
    names.write_text("\n".join(f"name{i}" for i in range(11)))
    with pytest.raises(UserError, match="11 names for a teacher of 12 classes"):
        create_networks(config, ["name2"])


@pytest.fixture
def nameless(teacher, tmp_path):
    """The teacher of twelve classes, without their names."""
    variables, meta = load_variables(teacher)
    save_variables(tmp_path / "nameless", variables, dataclasses.replace(meta, labels=()))
    return tmp_path / "nameless"


def test_an_assumed_order_of_nameless_classes_is_reported_and_an_ambiguous_one_refused(config, nameless, tmp_path):
    config.teacher.weights = str(nameless)
    config.dataset.name, config.dataset.root = "folder", str(make_folder(tmp_path / "images", classes="abcdefghijkl"))
    (tmp_path / "images" / "val" / "a" / "notes.txt").touch()
    source = open_source(config, "val")
    assert describe_data(create_networks(config, source.class_names), source, None) == [
        "left out of val: 1 without an image's suffix, first a/notes.txt",
        "the weights do not name their classes; their outputs are taken to be 0 'a', 1 'b', 2 'c', 3 'd', 4 'e', ...",
    ]
    numbers = sorted(str(number) for number in range(12))
    with pytest.raises(
        UserError, match=r"sort as text \(0, 1, 10, 11, 2, \.\.\.\) and as numbers .*config\.teacher\.labels"
    ):
        create_networks(config, numbers)
    (tmp_path / "labels.txt").write_text("\n".join(sorted(numbers, key=int)))
    config.teacher.labels = str(tmp_path / "labels.txt")
    assert create_networks(config, numbers).class_indices == (0, 1, 10, 11, *range(2, 10))


def test_weights_of_another_model_are_refused(config, teacher):
    config.teacher.weights = str(teacher)
    config.teacher.name = "resnet50"
    with pytest.raises(UserError, match=r"holds a resnet18, not config.teacher.name 'resnet50'"):
        create_networks(config, ["thing 1"])


def test_options_that_contradict_the_weights_are_refused(config, teacher):
    config.teacher.weights = str(teacher)
    with config.unlocked():
        config.teacher.options = {"width": 16}
    with pytest.raises(UserError, match=r"teacher has width=8, not config.teacher.options.width 16"):
        create_networks(config, ["thing 1"])


def test_a_new_classifier_has_the_datasets_classes_and_the_weights_body(config, teacher):
    config.teacher.weights, config.teacher.classifier = str(teacher), "new"
    networks = create_networks(config, ["my cat", "my dog"])
    assert (networks.num_classes, networks.labels, networks.class_indices) == (2, (("my cat",), ("my dog",)), None)
    assert networks.teacher_variables is None
    assert networks.teacher.num_classes == networks.student.num_classes == 2
    body, given = networks.teacher_body, load_variables(teacher)[0]
    jax.tree.map(np.testing.assert_array_equal, body, given)
    assert (networks.mean, networks.std) == ((0.5,) * 3, (0.25,) * 3)
    assert stages_to_run(config) == ("teacher", "stage1", "stage2")
    config.teacher.classifier = "given"
    assert stages_to_run(config) == ("stage1", "stage2")
    with pytest.raises(UserError, match=r"not among .*: my cat, my dog; to teach .* --config=own_classes$"):
        create_networks(config, ["my cat", "my dog"])


def test_a_folder_without_a_complete_description_is_refused(config, teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "odd")
    (tmp_path / "odd" / "meta" / "metadata").write_text(json.dumps({"name": "resnet18"}))
    config.teacher.weights = str(tmp_path / "odd")
    with pytest.raises(UserError, match="odd does not hold a finished network: nothing in it says num_classes, bottle"):
        create_networks(config, ["thing 1"])


def test_name_options_and_normalisation_come_from_the_weights(teacher):
    config = base_config()
    config.dataset.image_size, config.teacher.name, config.teacher.weights = 32, "", str(teacher)
    networks = create_networks(config, ["thing 1"])
    assert (networks.name, networks.options) == ("resnet18", {"width": 8})
    assert (networks.mean, networks.std) == ((0.5,) * 3, (0.25,) * 3)
    config.dataset.mean = (0.1, 0.2, 0.3)
    assert create_networks(config, ["thing 1"]).mean == (0.1, 0.2, 0.3)
    config.teacher.weights = ""
    config.teacher.name, config.dataset.mean = "resnet18", ()
    assert create_networks(config, ["thing 1"]).mean == IMAGENET_MEAN


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher):
    """A student of that teacher: 3 channels, 4 bits, a static range that was measured."""
    folder = tmp_path_factory.mktemp("weights") / "student"
    bottleneck = {"channels": 3, "version": 1, "bits": 4, "range": "static"}
    module = models.create("resnet18", num_classes=12, width=8, bottleneck=bottleneck)
    variables = to_host(jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3))))
    variables["ranges"]["quantizer"]["high"] = np.float32(2.5)  # low stays 0: the latent is never negative
    _, meta = load_variables(teacher)
    save_variables(folder, variables, dataclasses.replace(meta, bottleneck={**BOTTLENECK, **bottleneck}))
    return folder


def test_a_students_options_come_from_its_weights(config, student):
    config.teacher.name, config.stages.teacher.epochs = "", 0
    config.stages.stage1.epochs = config.stages.stage2.epochs = 0
    config.student.weights = str(student)
    config.student.bottleneck.channels = None
    networks = create_networks(config, ["thing 1"])
    assert networks.teacher is None
    assert (networks.student.bottleneck.channels, networks.student.bottleneck.version) == (3, 1)
    assert (networks.student.bottleneck.bits, networks.student.bottleneck.range) == (4, "static")
    assert not needs_calibration(networks.student_variables)
    assert open_training(config, networks, None) is None
    config.student.bottleneck.bits = 0
    assert create_networks(config, ["thing 1"]).student.bottleneck.bits is None
    config.student.bottleneck.channels = 6
    with pytest.raises(
        UserError, match=r"does not fit the config's resnet18: \d+ arrays differ, first batch_stats/dec"
    ):
        create_networks(config, ["thing 1"])


def test_a_student_as_teacher_and_a_teacher_as_student_are_refused(config, teacher, student):
    config.teacher.weights = str(student)
    with pytest.raises(UserError, match=r"holds a student; config.teacher.weights needs the folder of a teacher"):
        create_networks(config, ["thing 1"])
    config.teacher.weights, config.student.weights = "", str(teacher)
    with pytest.raises(UserError, match=r"holds a teacher; config.student.weights needs the folder of a student"):
        create_networks(config, ["thing 1"])


def test_a_teacher_and_a_student_with_other_normalisation_are_refused(config, teacher, student, tmp_path):
    variables, meta = load_variables(student)
    save_variables(tmp_path / "other", variables, dataclasses.replace(meta, mean=(0.0,) * 3))
    config.teacher.weights = str(teacher)
    config.student.weights = str(tmp_path / "other")
    config.student.bottleneck.channels = None
    with pytest.raises(UserError, match=r"do not belong together: mean is \(0\.5, 0\.5, 0\.5\) in .* and \(0\.0, 0"):
        create_networks(config, ["thing 1"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_teacher_weights_are_named_before_anything_is_trained(config, teacher, tmp_path, value):
    variables, meta = load_variables(teacher)
    variables["params"]["conv1"]["kernel"][0, 0, 0, 0] = value
    save_variables(tmp_path / "bad", variables, meta)
    config.teacher.weights = str(tmp_path / "bad")
    with pytest.raises(UserError, match=r"bad holds a network that diverged when it was trained: params/conv1/kernel"):
        create_networks(config, ["thing 1"])


def test_the_report_shows_the_values_that_a_config_left_open(config, student):
    config.teacher.name, config.stages.teacher.epochs = "", 0
    config.student.weights = str(student)
    config.student.bottleneck.channels = None
    networks = create_networks(config, ["thing 1"])
    shown = resolved(config, networks)
    assert shown["student"]["bottleneck"] == {
        **{"channels": 3, "version": 1, "bits": 4, "range": "static", "design": "bottlefit", "per": "image"},
        **{"hidden": 0, "cut": "layer2", "quantize_training": False},
    }
    assert (shown["dataset"]["mean"], shown["dataset"]["std"]) == ((0.5,) * 3, (0.25,) * 3)
    assert (shown["teacher"]["name"], shown["teacher"]["options"]) == ("resnet18", {"width": 8})
    config.student.bottleneck.bits = 0
    assert resolved(config, create_networks(config, ["thing 1"]))["student"]["bottleneck"]["bits"] == 0
    assert config.student.bottleneck.channels is None


@pytest.fixture
def unlabelled(config, teacher, tmp_path):
    """The config of a run of stage 1 alone on 30 images without labels."""
    make_folder(tmp_path / "frames", train=10, val=5)
    config.teacher.weights = str(teacher)
    config.dataset.update(name="", unlabelled=(str(tmp_path / "frames"),))
    config.stages.stage1.update(epochs=1, batch_size=9)
    config.stages.stage2.epochs = 0
    return config


def test_a_run_without_labels_has_all_of_its_teachers_classes(unlabelled):
    config = unlabelled
    check_config(config)
    evaluation = open_source(config, "val")
    networks = create_networks(config, **class_names(config, evaluation))
    assert (networks.num_classes, networks.class_indices, networks.train_indices) == (12, None, None)
    training = open_training(config, networks, evaluation)
    assert training is not None
    assert (len(training), len(evaluation)) == (27, 3)
    assert describe_data(networks, evaluation, training) == [
        "no labels: agreement with the teacher is measured on 3 images that are held out"
    ]
    config.stages.stage1.batch_size = 28
    with pytest.raises(UserError, match="batch_size 28 must be from 1 to the 27 images of unlabelled/train"):
        open_training(config, networks, evaluation)


def test_the_evaluation_can_be_of_another_dataset_with_other_classes(unlabelled, tmp_path):
    config = unlabelled
    make_folder(tmp_path / "train", classes=("thing 3", "thing 5"))
    make_folder(tmp_path / "val", classes=("thing 5", "thing 11", "thing 0"))
    config.dataset.update(name="folder", root=str(tmp_path / "train"))
    config.dataset.update(eval_name="folder", eval_root=str(tmp_path / "val"))
    config.stages.stage2.update(epochs=1, batch_size=4)
    evaluation = open_source(config, "val")
    networks = create_networks(config, **class_names(config, evaluation))
    assert (networks.class_indices, networks.train_indices) == ((0, 11, 5), (3, 5))
    training = open_training(config, networks, evaluation)
    assert training is not None
    assert len(training) == 12 + 30
    assert [len(images_of_stage(config, stage, training)) for stage in ("stage1", "stage2")] == [42, 12]
    for loss, alpha in (("distillation", 0.0), ("feature_matching", 0.5)):
        config.stages.stage2.update(loss=loss, alpha=alpha)
        assert len(images_of_stage(config, "stage2", training)) == 42
    assert class_names(config, evaluation)["train_names"] is None
    config.dataset.update(name="")
    check_config(config)
    assert len(open_source(config, "train")) == 30


def test_an_early_exit_is_not_trained_without_labels(unlabelled, tmp_path):
    config = unlabelled
    config.student.bottleneck.update(design="spinn", channels=16)
    config.stages.stage2.update(epochs=1, alpha=0.0, batch_size=4)
    check_config(config)
    with pytest.raises(UserError, match=r"design is 'spinn', which has a classifier on the device .*; it must be ano"):
        create_stages(config, create_networks(config, None))
    names = ("thing 3", "thing 5")
    config.dataset.update(name="folder", root=str(make_folder(tmp_path / "set", classes=names)))
    with pytest.raises(
        UserError, match=r"'spinn'.* stage2 learns from the teacher alone; config\.stages\.stage2\.alpha"
    ):
        create_stages(config, create_networks(config, names))
    config.stages.stage2.alpha = 0.5  # then stage 2 has the labelled images alone
    assert "exit" in create_stages(config, create_networks(config, names))["stage2"].terms
    config.stages.stage2.alpha = 0.0
    config.dataset.unlabelled = ()
    assert "exit" in create_stages(config, create_networks(config, names))["stage2"].terms


def test_the_teachers_answers_are_the_labels_of_images_without(unlabelled, teacher, tmp_path):
    config = unlabelled
    source = open_source(config, "val")
    networks = create_networks(config, **class_names(config, source))
    log = RunLog(tmp_path, primary=False)
    measured = Measurements(config, networks, None, source, create_mesh(8), log).with_answers_of_teacher(tmp_path)
    assert networks.teacher_variables is not None
    assert measured.evaluate(Role.TEACHER, networks.teacher_variables)["top1"] == 100.0
    images = np.concatenate([batch["image"][batch["mask"]] for batch in measured.batches(source)])
    pixels = normalise(jnp.asarray(images), **measured.pixels())
    logits = networks.teacher.apply(networks.teacher_variables, pixels, train=False)[0]
    answers = logits.argmax(-1).tolist()
    assert [measured.eval_source[index]["label"] for index in range(3)] == answers
    assert json.loads((tmp_path / "teacher_answers.json").read_text()) == answers
    assert measured.eval_source.class_names[4] == "thing 4"


def test_payloads_take_their_tables_from_training_images_where_there_are_any(config, student, tmp_path):
    config.teacher.name, config.student.weights = "", str(student)
    config.dataset.update(name="folder", root=str(make_folder(tmp_path / "set")))
    for stage in config.stages.values():
        stage.epochs = 0
    networks = create_networks(config, ["thing 1"])
    evaluation = open_source(config, "val")
    assert open_training(config, networks, evaluation).split == "train"
    config.student.bottleneck.bits = 0
    assert open_training(config, create_networks(config, ["thing 1"]), evaluation) is None
    flat = tmp_path / "flat"
    shutil.copytree(tmp_path / "set" / "val", flat / "val")
    config.dataset.root = str(flat)
    assert open_training(config, networks, evaluation) is None


def test_a_damaged_workdir_is_an_error(config, tmp_path):
    claim_workdir(tmp_path / "run", config)
    claim_workdir(tmp_path / "run", config)
    for damaged in (b"{", b"\xff\xfe"):
        (tmp_path / "run" / "config.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"config.json is damaged"):
            claim_workdir(tmp_path / "run", config)


def test_a_run_that_lacks_newer_config_keys_is_resumed(config, tmp_path):
    claim_workdir(tmp_path, config)
    older = json.loads((tmp_path / "config.json").read_text())
    del older["teacher"]["classifier"], older["frozen_statistics"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    claim_workdir(tmp_path, config)
    config.teacher.classifier = "new"
    with pytest.raises(UserError, match=r"another config \(teacher\.classifier: 'new' here, 'given' there\)"):
        claim_workdir(tmp_path, config)


def test_a_workdir_that_cannot_be_created_is_an_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run/config.json"):
        claim_workdir(tmp_path / "file" / "run", config)
