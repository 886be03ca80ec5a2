"""Initial weights from another network, and those that stay the network's own."""

import jax
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models


def teacher_and_student(draw_variables, name, bottleneck, **options):
    """Return a teacher's variables that differ from the initial ones, a student, and its variables."""
    teacher = models.create(name, num_classes=5, **options)
    student = models.create(name, num_classes=5, bottleneck=bottleneck, **options)
    given = jax.tree.map(lambda x: x + 0.01, draw_variables(teacher, 64))
    return given, student, draw_variables(student, 64)


@pytest.mark.parametrize(
    ("name", "stem", "options"), [("resnet18", ("conv1", "bn1"), {"width": 8}), ("densenet121", ("conv0", "norm0"), {})]
)
def test_the_teachers_filters_come_first_in_the_encoder_and_its_own_follow(draw_variables, name, stem, options):
    given, student, drawn = teacher_and_student(draw_variables, name, {"channels": 3}, **options)
    started = models.with_stem_of(given, drawn, student)
    conv, norm = stem
    filters = given["params"][conv]["kernel"].shape[-1]
    encoder = started["params"]["encoder"]
    np.testing.assert_array_equal(encoder["0"]["kernel"][..., :filters], given["params"][conv]["kernel"])
    own = drawn["params"]["encoder"]["0"]["kernel"]
    assert encoder["0"]["kernel"].shape == own.shape
    np.testing.assert_array_equal(encoder["0"]["kernel"][..., filters:], own[..., filters:])
    for collection in ("params", "batch_stats"):
        for leaf, values in given[collection][norm].items():
            np.testing.assert_array_equal(started[collection]["encoder"]["1"][leaf][:filters], values)
        untouched = {key: tree for key, tree in started[collection]["encoder"].items() if key not in ("0", "1")}
        jax.tree.map(
            np.testing.assert_array_equal, untouched, {key: drawn[collection]["encoder"][key] for key in untouched}
        )
        assert started[collection]["decoder"] is drawn[collection]["decoder"]


def test_the_encoders_first_features_then_equal_the_teachers(draw_variables):
    given, student, drawn = teacher_and_student(draw_variables, "resnet18", {"channels": 3}, width=64)
    started = models.with_stem_of(given, drawn, student)
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    _, features = models.create("resnet18", num_classes=5, width=64).apply(given, images)
    layers = student.design.encoder
    half = type(student.bind(started).encoder)(layers[:4])
    reached = half.apply({collection: tree["encoder"] for collection, tree in started.items()}, images)
    np.testing.assert_allclose(reached, features["maxpool"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "bottleneck", "options"),
    [
        ("resnet18", {"channels": 3, "design": "patch"}, {"width": 8}),
        ("resnet18", {"channels": 3, "design": "autoencoder"}, {"width": 8}),
        ("resnet18", {"channels": 16, "design": "spinn"}, {"width": 8}),
        ("resnet18", {"channels": 3, "version": 1}, {"width": 8}),
        ("resnet18", {"channels": 3}, {"width": 65}),
        ("mobilenet_v2", {"channels": 3}, {}),
        ("efficientnet_lite0", {"channels": 3}, {}),
    ],
)
def test_an_encoder_with_other_first_layers_or_fewer_filters_stays_the_same(draw_variables, name, bottleneck, options):
    given, student, drawn = teacher_and_student(draw_variables, name, bottleneck, **options)
    jax.tree.map(np.testing.assert_array_equal, models.with_stem_of(given, drawn, student), dict(drawn))


@pytest.mark.parametrize(
    ("name", "classifiers", "options"),
    [("resnet18", {"fc"}, {"width": 8}), ("inception_v3", {"fc", "AuxLogits"}, {"aux_logits": True})],
)
def test_a_teacher_keeps_the_body_and_has_its_own_classifiers(name, classifiers, options):
    modules = [models.create(name, num_classes=classes, **options) for classes in (5, 3)]
    size = modules[0].spec.image_size
    given, fresh = (
        jax.tree.map(
            lambda leaf, fill=fill: np.full(leaf.shape, fill),
            jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, size, size, 3), np.float32)),
        )
        for module, fill in zip(modules, (1.0, 2.0), strict=True)
    )
    started = models.with_body_of(given, fresh, modules[1])
    assert jax.tree.map(np.shape, started) == jax.tree.map(np.shape, fresh)
    for parts in started.values():
        for part, tree in parts.items():
            expected = 2.0 if part in classifiers else 1.0
            assert all((leaf == expected).all() for leaf in jax.tree.leaves(tree)), part


def test_without_a_teacher_nothing_changes(draw_variables):
    _, student, drawn = teacher_and_student(draw_variables, "resnet18", {"channels": 3}, width=8)
    assert models.with_stem_of({}, drawn, student) == drawn
