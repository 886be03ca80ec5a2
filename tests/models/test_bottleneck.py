"""The bottleneck: its layers, its quantiser, and shapes at any size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.errors import UserError

SIZES = [(33, 33), (64, 64), (97, 97), (160, 160), (224, 224), (225, 225), (227, 227), (64, 160), (225, 97), (480, 640)]


@pytest.fixture
def tiny(draw_variables):
    """Call it with the bottleneck's keys: a ResNet-18 student of width 8, images 2 × 32 × 32, and its variables."""

    def make(**options):
        module = models.create("resnet18", num_classes=5, width=8, bottleneck={"channels": 3, **options})
        images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
        return module, images, draw_variables(module, 32)

    return make


@functools.cache
def shapes(module, size):
    """(variables, (logits, features)) as shapes for one image."""
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    return variables, out


@pytest.mark.parametrize(
    ("name", "version", "latent", "numbers", "encoder_parameters"),
    [
        ("resnet152", 1, (56, 56, 12), "0 1 | 0 2 3 5 6 8 9 11 12 14", 147 * 12 + 24),
        ("resnet152", 2, (29, 29, 12), "0 1 4 6 | 0 2 3 5 6 8 9 11", 9408 + 256 + 4 * 64 * 12),
        ("resnet152", 3, (15, 15, 12), "0 1 4 6 7 9 | 0 2 3 5 6 8 9 11", 9408 + 256 + 256 * 512 + 1024 + 4 * 512 * 12),
        ("densenet169", 2, (29, 29, 12), "0 1 4 6 | 0 2 3 5 6 8 9 11 12 14", 9408 + 256 + 4 * 64 * 12),
    ],
)
def test_layers_are_numbered_as_in_the_reference(name, version, latent, numbers, encoder_parameters):
    module = models.create(name, bottleneck={"channels": 12, "version": version})
    variables, (_, features) = shapes(module, (224, 224))
    assert features["latent"].shape == (1, *latent)
    for half, expected in zip(("encoder", "decoder"), numbers.split(" | "), strict=True):
        assert sorted(variables["params"][half], key=int) == expected.split()
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"]["encoder"])) == encoder_parameters


def test_version_3_begins_its_decoder_with_a_transposed_convolution():
    variables, _ = shapes(models.create("resnet152", bottleneck={"version": 3}), (224, 224))
    assert variables["params"]["decoder"]["2"]["kernel_transposed"].shape == (2, 2, 12, 512)


def every_cut(names, mark=()):
    for name in names:
        for cut in models.create(name).feature_names:
            yield pytest.param(name, cut, marks=mark)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        *every_cut(("resnet18", "densenet121", "mobilenet_v2", "inception_v3")),
        *every_cut(("efficientnet_lite0",), pytest.mark.slow),
        *every_cut(("resnet34", "resnet50", "resnet101", "resnet152", "densenet169", "densenet201"), pytest.mark.slow),
    ],
)
def test_any_feature_can_be_the_cut(name, cut):
    module = models.create(name, bottleneck={"channels": 4, "cut": cut})
    size = (module.spec.image_size,) * 2
    _, (logits, features) = shapes(module, size)
    _, (_, teachers) = shapes(models.create(name), size)
    kept = module.feature_names[module.feature_names.index(cut) :]
    assert {key: features[key] for key in set(features) - {"latent", "decoded"}} == {key: teachers[key] for key in kept}
    assert features["decoded"] == features[cut]
    assert module.matched[0] == module.cut == cut
    assert set(module.matched) <= set(features)
    assert logits.shape == (1, 1000)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("cut", ["conv1", "layer1", "layer3", "layer4"])
def test_every_version_of_a_resnet_fits_every_cut(version, cut):
    module = models.create("resnet18", bottleneck={"version": version, "cut": cut})
    _, (_, features) = shapes(module, (224, 224))
    assert features["decoded"].shape[1:3] == module.feature_size((224, 224))


FAMILIES = [
    ("resnet18", 1, {}),
    ("resnet18", 2, {}),
    ("resnet18", 3, {}),
    ("mobilenet_v2", 2, {}),
    ("mobilenet_v2", 2, {"padding": "same"}),
    ("efficientnet_lite0", 2, {}),
    ("densenet121", 2, {}),
    ("inception_v3", 2, {}),
]


def every_size():
    """All sizes; most of those of the models that take seconds to trace are slow tests."""
    for size in SIZES:
        for name, version, options in FAMILIES:
            long = name in ("densenet121", "inception_v3", "efficientnet_lite0")
            later = long and size not in ((33, 33), (97, 97), (225, 97))
            yield pytest.param(name, version, options, size, marks=[pytest.mark.slow] * later)


@pytest.mark.parametrize(("name", "version", "options", "size"), list(every_size()))
def test_decoder_restores_the_features_shape_at_any_size(name, version, options, size):
    if name == "inception_v3" and min(size) < 75:
        with pytest.raises(UserError, match="at least 75 × 75"):
            models.create(name, bottleneck={"image_size": size})
        return
    module = models.create(name, bottleneck={"version": version, "image_size": size}, **options)
    variables, (_, features) = shapes(module, size)
    _, (_, expected) = shapes(models.create(name, **options), size)
    assert {key: features[key] for key in module.matched} == {key: expected[key] for key in module.matched}
    assert features["latent"].shape[1:3] == module.latent_size(size)
    _, decoded = jax.eval_shape(lambda v, z: module.apply(v, z, method="decode"), variables, features["latent"])
    assert decoded["decoded"] == features["decoded"]
    assert module.design == models.create(name, bottleneck={"version": version}, **options).design


@pytest.mark.parametrize("size", [64, 96, 128, 160, 192, 224, 256, 384, 512])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_decode_assumes_the_size_with_the_largest_power_of_two_factor(version, size):
    module = models.create("resnet18", bottleneck={"version": version})
    variables, (_, features) = shapes(module, (size, size))
    _, decoded = jax.eval_shape(lambda v, z: module.apply(v, z, method="decode"), variables, features["latent"])
    assert decoded["decoded"] == features["decoded"]


def test_a_student_encodes_then_quantises_then_decodes(tiny):
    module, images, variables = tiny(bits=4)
    logits, features = jax.jit(module.apply)(variables, images)
    latent = jax.jit(lambda v, x: module.apply(v, x, method="encode"))(variables, images)
    np.testing.assert_allclose(latent, features["latent"], rtol=1e-5, atol=1e-6)
    received = module.bind(variables).quantizer(features["latent"])
    again, decoded = jax.jit(lambda v, z: module.apply(v, z, method="decode"))(variables, received)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(decoded["decoded"], decoded["layer2"])


@pytest.mark.parametrize(("per", "axis"), [("image", (1, 2, 3)), ("batch", (0, 1, 2, 3)), ("channel", (1, 2))])
def test_the_quantisers_range_covers_what_per_names(tiny, per, axis):
    module, _, variables = tiny(bits=2, per=per)
    latent = np.random.default_rng(1).standard_normal((2, 5, 5, 3)).astype(np.float32) * [[[[1, 10, 100]]]]
    latent = (latent * np.array([1, 0.01]).reshape(2, 1, 1, 1)).astype(np.float32)
    error = np.abs(module.bind(variables).quantizer(latent) - latent)
    step = (latent.max(axis, keepdims=True) - latent.min(axis, keepdims=True)) / 3
    assert (error <= step * 1.001).all()
    assert (error.max(axis) > step.squeeze(axis) * 0.2).all()


@pytest.mark.parametrize(("per", "shape"), [("image", ()), ("batch", ()), ("channel", (3,))])
def test_static_ranges_are_variables_that_evaluation_uses(tiny, per, shape):
    module, images, variables = tiny(range="static", per=per)
    ranges = variables["ranges"]["quantizer"]
    assert {key: value.shape for key, value in ranges.items()} == {"low": shape, "high": shape}
    assert not any(np.asarray(value).any() for value in ranges.values())
    apply = jax.jit(module.apply)
    plain, features = jax.jit(tiny(bits=None)[0].apply)(variables, images)
    bound = np.abs(features["latent"]).max()
    full = {"low": jnp.full(shape, -bound), "high": jnp.full(shape, bound)}
    logits, _ = apply({**variables, "ranges": {"quantizer": full}}, images)
    np.testing.assert_allclose(logits, plain, atol=0.1 * np.abs(plain).max())
    clipped = jax.tree.map(lambda x: x / 100, full)
    assert not np.allclose(apply({**variables, "ranges": {"quantizer": clipped}}, images)[0], logits, rtol=1e-3)


@pytest.mark.parametrize("quantize_training", [False, True])
def test_training_quantises_only_on_request_and_gradients_pass(tiny, quantize_training):
    module, images, variables = tiny(bits=3, quantize_training=quantize_training)
    train = ("encoder", "decoder")

    def decoded(params, module):
        (_, features), _ = module.apply({**variables, "params": params}, images, train, mutable=["batch_stats"])
        return features["decoded"]

    got, plain = (jax.jit(decoded, static_argnums=1)(variables["params"], m) for m in (module, tiny(bits=None)[0]))
    assert np.allclose(got, plain, rtol=1e-5, atol=1e-5) != quantize_training
    gradient = jax.jit(jax.grad(lambda params: decoded(params, module).var()))(variables["params"])
    assert np.abs(gradient["encoder"]["6"]["kernel"]).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chanels": 3}, "unknown bottleneck key 'chanels'; the keys are channels, hidden, design, version"),
        ({"channels": 0}, "channels=0 must be an integer from 1 up"),
        ({"channels": 2.5}, "channels=2.5 must"),
        ({"hidden": 0}, "hidden=0 must be an integer from 1 up, or None for the family's"),
        ({"version": 4}, "version=4 must be one of 1, 2, 3 for a resnet"),
        ({"version": "2"}, "version='2' must"),
        (
            {"design": "patches"},
            r"design='patches' must be one of 'bottlefit', 'patch'",
        ),
        ({"design": "patch", "version": 1}, "version=1 belongs to bottlefit; design='patch' has none"),
        ({"bits": 9}, "bits=9 must be an integer from 1 to 8"),
        ({"bits": 0}, "bits=0 must"),
        ({"cut": "layer5"}, "cut='layer5' must be one of resnet18's features: conv1, bn1, relu, maxpool, layer1"),
        ({"cut": "fc"}, "cut='fc' must"),
        ({"cut": "avgpool"}, "cut='avgpool' must"),
        ({"image_size": 0}, "image_size=0 must be a positive integer or a pair"),
        ({"image_size": (1, 2, 3)}, r"image_size=\(1, 2, 3\) must"),
        ({"image_size": "big"}, "image_size='big' must"),
        ({"per": "pixel"}, "per='pixel' must be one of 'image', 'batch', 'channel'"),
        ({"range": "fixed"}, "range='fixed' must be one of 'dynamic', 'static'"),
        ({"quantize_training": 3}, "quantize_training=3 must be one of False, True"),
        (12, "bottleneck=12 must be a dictionary"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        models.create("resnet18", bottleneck=options)


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "inception_v3"])
def test_only_resnets_have_versions(name):
    with pytest.raises(UserError, match="version=1 must be one of 2 for a"):
        models.create(name, bottleneck={"version": 1})


def test_too_small_an_image_is_refused_in_the_constructor_and_at_the_call():
    with pytest.raises(
        UserError, match=r"images of 16 × 40 are too small for densenet121.*transition3.*at least 29 × 29"
    ):
        models.create("densenet121", bottleneck={"image_size": (16, 40)})
    module = models.create("densenet121", bottleneck={})
    with pytest.raises(UserError, match="images of 16 × 16 are too small"):
        shapes(module, (16, 16))


def test_a_teacher_has_no_encoder():
    module = models.create("resnet18", width=4)
    with pytest.raises(UserError, match="resnet18 was created without a bottleneck, so it has no method 'encode'"):
        module.apply({}, jnp.zeros((1, 32, 32, 3)), method="encode")
