"""What a run opens: classes that fit or do not, weights that are the config's or are not, workdirs."""

import json
import signal

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.inputs import (
    claim_workdir,
    create_networks,
    describe_data,
    needs_calibration,
    open_source,
    open_training,
    stages_to_run,
)
from bottlefit_jax.experiment.results import resolved
from bottlefit_jax.recipe import BOTTLENECK, IMAGENET_MEAN, base_config
from bottlefit_jax.training.checkpoint import load_variables, save_variables
from bottlefit_jax.training.sharding import to_host
from tests import signalled
from tests.data.images import make_folder
from tests.test_main import ROOT, run


@pytest.fixture
def config():
    config = base_config()
    config.teacher.name = "resnet18"
    config.teacher.options = {"width": 8}
    config.dataset.image_size = 32
    config.student.bottleneck.channels = 3
    return config.lock()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of twelve classes, with names."""
    folder = tmp_path_factory.mktemp("weights") / "teacher"
    module = models.create("resnet18", num_classes=12, width=8)
    variables = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3)))
    labels = [[f"n0000000{i}" if i < 10 else f"n000000{i}", f"thing {i}"] for i in range(12)]
    meta = {"name": "resnet18", "options": {"width": 8}, "num_classes": 12, "bottleneck": None, "labels": labels}
    save_variables(folder, to_host(variables), {**meta, "mean": [0.5] * 3, "std": [0.25] * 3})
    return folder


def test_classes_of_the_dataset_are_found_among_the_teachers(config, teacher):
    config.teacher.weights = str(teacher)
    networks = create_networks(config, ["thing 11", "n00000003"])
    assert networks.class_indices == (11, 3)
    assert networks.num_classes == 12
    with pytest.raises(UserError, match="thing 99"):
        create_networks(config, ["thing 99", "thing 1"])


def test_labels_from_a_file_take_the_place_of_the_teachers_own(config, teacher, tmp_path):
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
    save_variables(tmp_path / "nameless", variables, {**meta, "labels": []})
    return tmp_path / "nameless"


def test_the_order_of_nameless_classes_is_said_or_refused(config, nameless, tmp_path):
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


def test_weights_of_another_model_are_told(config, teacher):
    config.teacher.weights = str(teacher)
    config.teacher.name = "resnet50"
    with pytest.raises(UserError, match=r"holds a resnet18, not config.teacher.name 'resnet50'"):
        create_networks(config, ["thing 1"])


def test_options_that_contradict_the_weights_are_told(config, teacher):
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
    with pytest.raises(UserError, match=r"not among .*: my cat, my dog; to teach .* --config=configs/own_classes.py"):
        create_networks(config, ["my cat", "my dog"])


def test_a_folder_that_does_not_say_what_it_holds_is_told(config, tmp_path):
    save_variables(tmp_path / "odd", {"params": {"a": np.zeros(1)}}, {"name": "resnet18"})
    config.teacher.weights = str(tmp_path / "odd")
    with pytest.raises(UserError, match="odd does not hold a finished network: nothing in it says num_classes, bottle"):
        create_networks(config, ["thing 1"])


def test_weights_bring_name_options_and_normalisation(teacher):
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
    save_variables(folder, variables, {**meta, "bottleneck": {**BOTTLENECK, **bottleneck}})
    return folder


def test_a_student_is_taken_as_it_is(config, student):
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


def test_weights_in_the_wrong_place_are_told(config, teacher, student):
    config.teacher.weights = str(student)
    with pytest.raises(UserError, match=r"holds a student; config.teacher.weights needs the folder of a teacher"):
        create_networks(config, ["thing 1"])
    config.teacher.weights, config.student.weights = "", str(teacher)
    with pytest.raises(UserError, match=r"holds a teacher; config.student.weights needs the folder of a student"):
        create_networks(config, ["thing 1"])


def test_teacher_and_student_of_different_kinds_are_told(config, teacher, student, tmp_path):
    variables, meta = load_variables(student)
    save_variables(tmp_path / "other", variables, {**meta, "mean": [0.0] * 3})
    config.teacher.weights = str(teacher)
    config.student.weights = str(tmp_path / "other")
    config.student.bottleneck.channels = None
    with pytest.raises(UserError, match=r"do not belong together: mean is \[0\.5, 0\.5, 0\.5\] in .* and \[0\.0, 0"):
        create_networks(config, ["thing 1"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_teacher_whose_training_diverged_is_named_before_anything_is_trained(config, teacher, tmp_path, value):
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


def test_a_damaged_workdir_is_told(config, tmp_path):
    claim_workdir(tmp_path / "run", config)
    claim_workdir(tmp_path / "run", config)
    for damaged in (b"{", b"\xff\xfe"):
        (tmp_path / "run" / "config.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"config.json is damaged"):
            claim_workdir(tmp_path / "run", config)


def test_a_run_from_before_a_key_was_there_goes_on(config, tmp_path):
    claim_workdir(tmp_path, config)
    older = json.loads((tmp_path / "config.json").read_text())
    del older["teacher"]["classifier"], older["frozen_statistics"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    claim_workdir(tmp_path, config)
    config.teacher.classifier = "new"
    with pytest.raises(UserError, match=r"another config \(teacher\.classifier: 'new' here, 'given' there\)"):
        claim_workdir(tmp_path, config)


def test_a_workdir_that_cannot_be_made_is_told(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run/config.json"):
        claim_workdir(tmp_path / "file" / "run", config)


def digit_images(root, digits, *, each):
    """The scikit-learn digits of a few classes as PNG folders: the first `each` to train, half as many to evaluate."""
    images, labels = load_digits(return_X_y=True)
    for digit in digits:
        for index, image in enumerate(images[labels == digit][: each + each // 2]):
            folder = root / ("train" if index < each else "val") / f"my {digit}"
            folder.mkdir(parents=True, exist_ok=True)
            large = cv2.resize((image.reshape(8, 8) * 15.9).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{index}.png"), large)
    return root


@pytest.mark.slow
def test_own_classes_are_learnt_on_a_given_body_and_resumed_to_the_bit(tmp_path):
    """The body of a network of ten digits, and 60 images each of three classes under other names."""
    stages = [f"--config.stages.{name}.epochs" for name in ("teacher", "stage1", "stage2")]
    code, _, err = run(
        f"--workdir={tmp_path / 'all'}",
        "--config.teacher.options.width=8",
        *(f"{key}={epochs}" for key, epochs in zip(stages, (4, 0, 0), strict=True)),
    )
    assert code == 0, err
    own = (
        f"--config.teacher.weights={tmp_path / 'all' / 'teacher'}",
        f"--config.dataset.root={digit_images(tmp_path / 'set', (3, 4, 8), each=60)}",
        "--config.dataset.resize=32",
        "--config.dataset.flip=False",
        "--config.dataset.crop_scale=(0.7, 1.0)",
        "--config.student.bottleneck.channels=6",
        "--config.checkpoint.every_steps=2",
        "--config.stages.teacher.learning_rate=0.02",
        *(f"{key}={epochs}" for key, epochs in zip(stages, (4, 1, 1), strict=True)),
    )
    code, out, err = run(*own, f"--workdir={tmp_path / 'run'}", config="configs/own_classes.py")
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["teacher"]["top1"] >= 95
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "stage1", "stage2"]
    metas = [load_variables(tmp_path / "run" / name)[1] for name in ("teacher", "student")]
    assert [(meta["num_classes"], meta["labels"], meta["image_size"]) for meta in metas] == [
        (3, [["my 3"], ["my 4"], ["my 8"]], 32)
    ] * 2

    flags = ("--config=configs/own_classes.py", *own, f"--workdir={tmp_path / 'killed'}")
    path = tmp_path / "killed" / "checkpoints" / "teacher" / "4"
    assert signalled.run("bottlefit_jax.main", *flags, signum=signal.SIGKILL, path=path)[0] == -signal.SIGKILL
    code, out, err = run(*own, f"--workdir={tmp_path / 'killed'}", config="configs/own_classes.py")
    assert code == 0, err
    assert "teacher: going on from step" in out
    again = [load_variables(tmp_path / "killed" / name)[1]["digest"] for name in ("teacher", "student")]
    assert again == [meta["digest"] for meta in metas]


@pytest.mark.slow
def test_a_teacher_from_a_folder_a_static_range_and_skipped_images_make_a_whole_run(teacher, tmp_path):
    """Two of the teacher's twelve classes; one training image is truncated."""
    rng = np.random.default_rng(0)
    for split, name in (("train", "thing 4"), ("train", "thing 7"), ("val", "thing 4"), ("val", "thing 7")):
        folder = tmp_path / "set" / split / name
        folder.mkdir(parents=True)
        for index in range(9):
            cv2.imwrite(str(folder / f"{index}.jpg"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    victim = tmp_path / "set" / "train" / "thing 4" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:-200])
    code, out, err = run(
        f"--workdir={tmp_path / 'run'}",
        f"--config.teacher.weights={teacher}",
        "--config.teacher.options.width=8",
        "--config.student.bottleneck.quantize_training=True",
        "--config.dataset.name=folder",
        f"--config.dataset.root={tmp_path / 'set'}",
        "--config.dataset.on_bad_image=skip",
        "--config.student.bottleneck.range=static",
        *(
            f"--config.stages.{stage}.{value}"
            for stage in ("stage1", "stage2")
            for value in ("epochs=1", "batch_size=6")
        ),
    )
    assert (code, err) == (0, ""), err
    assert f"skipped 1 of 18 images of train, first {victim}" in out
    report = (tmp_path / "run" / "report.md").read_text()
    assert "resnet18 + 3-channel bottleneck" in report
    assert ROOT.name not in report.split("```")[0]
