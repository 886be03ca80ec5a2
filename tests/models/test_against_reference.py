"""Logits and features equal the PyTorch reference's, fixture by fixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.convert import from_torch


def both_sizes(*names):
    """The fixtures of 64 pixels, and those of 224 with the slow tests."""
    return [f"{n}_s64" for n in names] + [pytest.param(f"{n}_s224", marks=pytest.mark.slow) for n in names]


TEACHERS = both_sizes("resnet50", "mobilenet_v2", "densenet169", "resnet152")
STUDENTS = both_sizes("custom_densenet169_3ch", "custom_resnet152_12ch_ver2")
QUANTIZED = both_sizes("custom_densenet169_3ch_q8", "custom_resnet152_12ch_ver2_q8")
BOTTLENECKS = {"custom_densenet169": ("densenet169", 3), "custom_resnet152": ("resnet152", 12)}


def student(case, **plan):
    """The module and its variables for a `custom_…` fixture."""
    name, channels = next(value for key, value in BOTTLENECKS.items() if case.entry["model"].startswith(key))
    plan = {"channels": channels, "version": 2, **plan}
    return models.create(name, bottleneck=plan), from_torch(name, case.weights, bottleneck=plan)


def run(function, names, *args):
    """Compile and call `-> (logits, features)`; only the named features come back."""

    @jax.jit
    def chosen(*args):
        logits, features = function(*args)
        return logits, {name: features[name] for name in names}

    return chosen(*args)


@pytest.mark.parametrize("fixture", TEACHERS)
def test_teacher_equals_the_reference(golden, fixture):
    case = golden(fixture)
    module = models.create(case.entry["model"])
    variables = from_torch(case.entry["model"], case.weights)
    logits, features = run(module.apply, tuple(case.entry["features"]), variables, case.images)
    for name, feature in features.items():
        case.comparison.check(name, feature)
    case.comparison.check("logits", logits)


@pytest.mark.parametrize("fixture", STUDENTS)
def test_student_equals_the_reference(golden, fixture):
    case = golden(fixture)
    module, variables = student(case, bits=None)
    _compare_student(case, module.apply, module, variables, case.images)


@pytest.mark.parametrize("fixture", QUANTIZED)
def test_quantized_student_equals_the_reference_in_three_parts(golden, fixture):
    case = golden(fixture)
    module, variables = student(case, bits=8, per="batch")
    stored = case.comparison.file
    latent = jax.jit(functools.partial(module.apply, method="encode"))(variables, case.images)
    case.comparison.check("z", latent)

    received = jax.jit(lambda z: module.bind({}).quantizer(z))(stored["z/full"].transpose(0, 2, 3, 1))
    scale, zero_point = stored["quant/scale"], stored["quant/zero_point"]
    q = np.asarray(received, np.float64).transpose(0, 3, 1, 2) / scale + zero_point
    differs = np.abs(q - stored["quant/q"])
    assert differs.max() < 1.01
    assert (differs > 0.01).mean() <= 1e-3

    z_hat = (scale * (stored["quant/q"].astype(np.float64) - zero_point)).transpose(0, 2, 3, 1).astype(np.float32)
    case.comparison.check("z_hat", z_hat)
    _compare_student(case, functools.partial(module.apply, method="decode"), module, variables, jnp.asarray(z_hat))


def _compare_student(case, function, module, variables, x):
    own = {"bottleneck": module.cut, "z": "latent"} if x is case.images else {"bottleneck": module.cut}
    names = {name: own.get(name, name) for name in case.entry["features"] if name not in {"z", "z_hat"} - set(own)}
    logits, features = run(function, tuple(names.values()), variables, x)
    for name, ours in names.items():
        case.comparison.check(name, features[ours])
    case.comparison.check("logits", logits)
    np.testing.assert_array_equal(features[module.cut], features[names["bottleneck"]])
