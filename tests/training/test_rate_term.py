"""The rate term: switched off it changes nothing, and what it draws does not depend on the number of devices."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from bottlefit_jax.experiment.inputs import create_networks, create_stages, stage_settings
from bottlefit_jax.models.density import FactorizedDensity
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import sharding, step
from bottlefit_jax.training.stages import Role, create_stage
from tests.training.conftest import PIXELS, make_batches


class WithoutSteps:
    """A network that gets the random streams of a training without the rate term."""

    def __init__(self, module):
        self.module = module

    def apply(self, *arguments, rngs, **options):
        return self.module.apply(*arguments, rngs={"dropout": rngs["dropout"]}, **options)


def network_config(name, **rate):
    config = base_config()
    config.dataset.image_size = 32
    # MobileNet's classifier has dropout, which draws as well; ResNet-18 is faster to trace.
    config.teacher.name = {"stage1": "resnet18", "stage2": "mobilenet_v2"}[name]
    config.student.bottleneck.channels = 3
    config.student.rate.update(rate)
    return config


def program(stage, module, teacher):
    """Return the text of the program that computes a stage's loss, without what no result needs."""
    keys = {name: jax.random.key(0) for name in ("params", "steps")}
    images = jnp.zeros((4, 32, 32, 3), jnp.uint8)
    owner = getattr(module, "module", module)
    variables = [
        jax.eval_shape(functools.partial(each.init, keys), normalise(images, **PIXELS)) for each in (owner, teacher)
    ]
    loss = step.loss_terms(stage, module, teacher, **PIXELS)
    params = step.trained_params(variables[0], stage)
    label = jnp.zeros(4, jnp.int32)
    traced = jax.make_jaxpr(loss)(params, *variables, images, label, jax.random.key(0))
    needed, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return re.sub(r"0x[0-9a-f]+", "", str(needed))


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_a_weight_of_0_gives_the_program_of_a_training_that_knows_no_rate(name):
    config = network_config(name, weight=0.0, steps=(1.0, 2.0, 4.0))
    networks = create_networks(config, ["ant", "bee"])
    assert networks.steps == ()
    off = program(create_stages(config, networks)[name], networks.training_module(Role.STUDENT), networks.teacher)
    settings = stage_settings(config, name)
    options = {key: value for key, value in settings.loss_options.items() if key != "rate_weight"}
    without = create_stage(name, type(settings)(**{**vars(settings), "loss_options": options}), networks.student)
    assert off == program(without, WithoutSteps(networks.student), networks.teacher)

    networks = create_networks(network_config(name, weight=0.5, steps=(1.0,)), ["ant", "bee"])
    on = program(create_stages(config, networks)[name], networks.training_module(Role.STUDENT), networks.teacher)
    assert on != off


def test_steps_and_noise_are_the_same_on_any_number_of_devices(pair):
    student = pair.student.clone(steps=(1.0, 2.0, 4.0))
    density = FactorizedDensity(3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)), jnp.ones(1))["params"]
    variables = {**pair.student_variables, "params": {**pair.student_variables["params"], "density": density}}
    image, key = make_batches(1)[0]["image"], jax.random.key(5)

    def drawn(variables, image, key):
        parts = ("encoder", "decoder", "density")
        outputs, _ = student.apply(
            variables, normalise(image, **PIXELS), train=parts, mutable=["batch_stats"], rngs={"steps": key}
        )
        return {name: outputs[1][name] for name in ("step", "bits", "decoded")}

    results = []
    for count in (1, 2, 4):
        devices = jax.devices()[:count]
        mesh = jax.make_mesh((count,), ("data",), (jax.sharding.AxisType.Auto,), devices=devices)
        whole, rows = sharding.replicated(mesh), sharding.split(mesh)
        compiled = jax.jit(drawn, in_shardings=(whole, rows, whole), out_shardings=whole)
        results.append(jax.device_get(compiled(variables, image, key)))
    one, *others = results
    assert set(one["step"].tolist()) == {1.0, 2.0, 4.0}
    for other in others:
        np.testing.assert_array_equal(other["step"], one["step"])
        np.testing.assert_allclose(other["bits"], one["bits"], rtol=1e-4)
        np.testing.assert_allclose(other["decoded"], one["decoded"], atol=1e-4 * np.abs(one["decoded"]).max())
