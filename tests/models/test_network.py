"""The backbones: structure, names, modes, and error messages."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models
from bottlefit_jax.errors import UserError

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "mobilenet_v2": 3_504_872,
    "inception_v3": 27_161_264,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}


@functools.cache
def shapes(module, size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    return variables, out


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def digest(tree):
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).hexdigest()


@pytest.fixture(scope="module")
def student(draw_variables):
    """(module, variables, images) of a tiny ResNet student."""
    module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3})
    images = draw(2, 32, 32, 3)
    return module, draw_variables(module, 32), images


def compiled(module, train):
    """`(variables, images) -> ((logits, features), {"batch_stats": ...})` in that mode."""
    return jax.jit(lambda variables, images: module.apply(variables, images, train, mutable=["batch_stats"]))


@pytest.mark.parametrize("name", models.MODELS)
def test_parameter_counts_are_those_of_pytorchs_models(name):
    module = models.create(name)
    variables, (logits, features) = shapes(module, (299, 299))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == COUNTS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.shape == (1, 1000)
    assert set(features) == set(module.feature_names)
    assert set(variables["params"]) <= set(module.parts)
    for name, feature in features.items():
        part = next(part for part in module.spec.parts(1000, jnp.float32, **dict(module.options)) if part.name == name)
        assert feature.shape[-1] == part.channels


@pytest.mark.parametrize("size", [(75, 75), (97, 120), (224, 224), (225, 227)])
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "inception_v3", "efficientnet_lite0"])
def test_declared_windows_are_those_of_the_modules(name, size):
    _, (_, features) = shapes(models.create(name), size)
    for cut, feature in features.items():
        assert models.create(name, bottleneck={"cut": cut}).feature_size(size) == feature.shape[1:3]


def test_parts_have_torchvisions_names():
    blocks = [f"{kind}{i}" for i in (1, 2, 3) for kind in ("denseblock", "transition")]
    stem = ("conv0", "norm0", "relu0", "pool0")
    assert models.create("densenet169").parts == (*stem, *blocks, "denseblock4", "norm5", "classifier")
    tail = ("layer3", "layer4", "avgpool", "fc")
    assert models.create("resnet152", bottleneck={}).parts == ("encoder", "decoder", *tail)
    assert models.create("resnet152", bottleneck={}).matched == ("layer2", "layer3", "layer4")
    assert models.create("mobilenet_v2").matched == ("features6", "features13", "features18")
    assert models.create("efficientnet_lite0").matched == ("block4", "block10", "conv_head")
    assert models.create("inception_v3").parts[-3:] == ("dropout", "fc", "AuxLogits")


def test_a_students_tail_has_the_teachers_paths():
    teacher, _ = shapes(models.create("densenet121"), (224, 224))
    student, _ = shapes(models.create("densenet121", bottleneck={}), (224, 224))
    for collection in ("params", "batch_stats"):
        own = set(student[collection]) - {"encoder", "decoder"}
        assert own == set(teacher[collection]) & set(models.create("densenet121", bottleneck={}).parts)
        for part in own:
            assert student[collection][part] == teacher[collection][part]


def test_equal_arguments_create_equal_modules():
    first, second = (models.create("resnet18", bottleneck={"channels": 3}, dtype="bfloat16") for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != models.create("resnet18", bottleneck={"channels": 4}, dtype="bfloat16")


def test_a_network_builds_its_parts_once():
    calls = []

    def parts(*arguments, **options):
        calls.append(arguments)
        return known.parts(*arguments, **options)

    known = models.MODELS["resnet18"]
    module = models.create("resnet18", num_classes=2, width=8, bottleneck={"channels": 3, "design": "reduction"})
    module = module.clone(spec=dataclasses.replace(known, parts=parts))
    variables, _ = shapes(module, (40, 40))
    jax.eval_shape(lambda v, x: module.apply(v, x, method="decode"), variables, jnp.zeros((1, 4, 6, 3)))
    assert len(calls) == 1


def test_initialisation_is_deterministic_and_torchvisions():
    module = models.create("resnet18", width=16, num_classes=5, bottleneck={"channels": 3, "cut": "layer3"})
    images = draw(1, 32, 32, 3)
    init = jax.jit(module.init)
    params = init(jax.random.key(0), images)["params"]
    assert digest(init(jax.random.key(0), images)["params"]) == digest(params)
    assert digest(init(jax.random.key(1), images)["params"]) != digest(params)
    np.testing.assert_allclose(params["layer4"]["1"]["conv2"]["kernel"].std(), np.sqrt(2 / (128 * 9)), rtol=0.02)
    kernel = params["decoder"]["5"]["kernel"]
    np.testing.assert_allclose(np.abs(kernel).max(), (kernel.shape[2] * 4) ** -0.5, rtol=0.01)


@pytest.mark.parametrize("train", [("decoder", "layer3", "fc"), {"layer4"}, frozenset({"encoder"})])
def test_only_the_parts_named_train(student, train):
    module, variables, images = student
    _, new = compiled(module, train)(variables, images)
    for part, stats in variables["batch_stats"].items():
        assert (digest(stats) == digest(new["batch_stats"][part])) == (part not in train)


def test_a_frozen_encoder_keeps_its_output(student):
    module, variables, images = student
    (_, evaluated), _ = compiled(module, False)(variables, images)
    others = tuple(part for part in module.parts if part != "encoder")
    (_, features), _ = compiled(module, others)(variables, images)
    np.testing.assert_array_equal(features["latent"], evaluated["latent"])


@pytest.mark.parametrize("train", ["decoder", ("decodr",), ("layer1",)])
def test_an_unknown_part_is_named(student, train):
    module, variables, images = student
    with pytest.raises(
        UserError, match=r"must be True, False or a collection of these parts: encoder, decoder, layer3"
    ):
        module.apply(variables, images, train)


def test_dropout_draws_only_in_training(draw_variables):
    module = models.create("mobilenet_v2", num_classes=3)
    images = draw(1, 32, 32, 3)
    variables = draw_variables(module, 32)

    @jax.jit
    def logits(seed):
        key = {"dropout": jax.random.key(seed)}
        return module.apply(variables, images, ("classifier",), rngs=key)[0]

    assert not np.array_equal(logits(0), logits(1))
    np.testing.assert_array_equal(logits(0), logits(0))


class TestInception:
    def test_the_auxiliary_classifier_runs_in_training_only(self):
        module = models.create("inception_v3", num_classes=7)
        images = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        assert "AuxLogits" in variables["params"]

        def apply(train):
            rngs = {"dropout": jax.random.key(0)}
            return jax.eval_shape(
                lambda v, x: module.apply(v, x, train, rngs=rngs, mutable=["batch_stats"]), variables, images
            )

        (_, features), _ = apply(True)
        assert features["aux_logits"].shape == (2, 7)
        assert "aux_logits" not in apply(False)[0][1]
        assert "aux_logits" not in apply(("fc",))[0][1]

    def test_too_small_images_are_refused_in_training(self):
        module = models.create("inception_v3")
        variables, _ = shapes(module, (128, 128))
        with pytest.raises(UserError, match="input of 6 × 6, less than 17 × 17: train inception_v3 on images from 299"):
            jax.eval_shape(lambda v, x: module.apply(v, x, ("AuxLogits",)), variables, jnp.zeros((1, 128, 128, 3)))

    def test_a_student_or_an_option_leaves_it_out(self):
        for module in (models.create("inception_v3", aux_logits=False), models.create("inception_v3", bottleneck={})):
            assert "AuxLogits" not in module.parts
            assert "AuxLogits" not in shapes(module, (299, 299))[0]["params"]

    def test_transformed_input_is_the_image_scaled_to_minus_one_and_one(self, draw_variables):
        rgb = np.array([0.1, 0.5, 0.9], np.float32)
        images = np.broadcast_to((rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], (1, 75, 75, 3))
        images = images.astype(np.float32)
        plain, transformed = (models.create("inception_v3", transform_input=t, num_classes=2) for t in (False, True))
        variables = draw_variables(plain, 75)
        first = "Conv2d_1a_3x3"
        expected = jax.jit(lambda x: plain.apply(variables, x)[1][first])(
            np.broadcast_to((rgb - 0.5) / 0.5, images.shape).astype(np.float32)
        )
        got = jax.jit(lambda x: transformed.apply(variables, x)[1][first])(images)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_networks_have_float32_parameters_and_logits(draw_variables):
    plan = {"channels": 3, "bits": 8}
    wide, narrow = (
        models.create("resnet18", num_classes=5, width=8, bottleneck=plan, dtype=t) for t in ("float32", "bfloat16")
    )
    images = draw(2, 32, 32, 3)
    variables = draw_variables(narrow, 32)
    abstract, _ = shapes(narrow, (32, 32))
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} == {jnp.dtype("float32")}
    logits, features = jax.jit(narrow.apply)(variables, images)
    assert logits.dtype == jnp.float32
    assert {feature.dtype for feature in features.values()} == {jnp.dtype("bfloat16")}
    expected, _ = jax.jit(wide.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet99", {}, "unknown model 'resnet99'; the models are resnet18, resnet34"),
        ("resnet18", {"depth": 3}, "unknown option depth=3 for resnet18; the options are .*width"),
        ("densenet121", {"width": 64}, "unknown option width=64 for densenet121"),
        ("resnet18", {"width": 0}, "width=0 must be an integer from 1 up"),
        ("resnet18", {"num_classes": 0}, "num_classes=0 must be an integer from 1 up"),
        ("resnet18", {"dtype": "int8"}, "dtype='int8' must be a floating type"),
        ("resnet18", {"dtype": "floaty"}, "dtype='floaty' must be a floating type"),
        ("mobilenet_v2", {"padding": "valid"}, "padding='valid' must be one of 'torch', 'same'"),
        ("inception_v3", {"aux_logits": "yes"}, "aux_logits='yes' must be one of False, True"),
    ],
)
def test_a_wrong_argument_is_named(name, arguments, message):
    with pytest.raises(UserError, match=message):
        models.create(name, **arguments)


def test_an_input_that_is_no_batch_of_images_is_refused():
    module = models.create("resnet18", width=4)
    with pytest.raises(UserError, match=r"has shape \(32, 32, 3\); it must be \[batch, height, width, channels\]"):
        module.init(jax.random.key(0), jnp.zeros((32, 32, 3)))


def test_a_network_names_the_classifiers_that_learn_beside_the_last_one():
    def heads(name, **options):
        return models.create(name, **options).auxiliary_heads

    assert heads("inception_v3") == (("AuxLogits", "aux_logits", 0.4),)
    assert heads("resnet18", bottleneck={"design": "spinn", "channels": 128}) == (("exit", "exit_logits", 1.0),)
    for name, options in (
        ("inception_v3", {"aux_logits": False}), ("inception_v3", {"bottleneck": {}}), ("resnet18", {})
    ):  # fmt: skip
        assert heads(name, **options) == ()
