"""The bits that training counts are those that payloads have.

The density knows nothing of a pixel's neighbours, nor of other channels. So it is compared with payloads whose codes do
not either: one code for each channel. The codec's own payloads are smaller.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bottlefit_jax import data, models
from bottlefit_jax.codec import dequantize, encode, fit_rate
from bottlefit_jax.codec.fit import UNITS
from bottlefit_jax.codec.huffman import code_lengths
from bottlefit_jax.codec.rate import Contexts, Group, Rate, symbols_of, values_of
from bottlefit_jax.codec.wire import HEADER
from bottlefit_jax.evaluation.networks import calibrate
from bottlefit_jax.evaluation.split_student import SplitStudent
from bottlefit_jax.models.density import FactorizedDensity
from bottlefit_jax.training import sharding, stages, step
from tests.training.conftest import PIXELS

STEPS = (0.25, 0.5)
WEIGHT = 0.003  # so low, and steps so fine, that a symbol has some bits: a code spends whole bits on each
BATCH, UPDATES, CHANNELS = 32, 1000, 3
BOTTLENECK = {"channels": CHANNELS, "bits": 8, "per": "image", "range": "static", "design": "patch"}
ALONE = Contexts(((),), ((0,),))  # a single context


def digits(split):
    source = data.open_source("digits", split=split)
    return np.stack([np.asarray(source.read(index)[0]) for index in range(len(source))])


def batches(images):
    for start in range(0, len(images), 64):
        part = images[start : start + 64]
        yield {"image": part, "label": np.zeros(len(part), np.int32), "mask": np.ones(len(part), bool)}


def train(images):
    """Train a student for rates, and return its module without steps and its variables with the density."""
    options = {"num_classes": 10, "width": 4}
    teacher, plain = models.create("resnet18", **options), models.create("resnet18", bottleneck=BOTTLENECK, **options)
    student, mesh = plain.clone(steps=STEPS), sharding.create_mesh(1)
    keys = {name: jax.random.key(number) for number, name in enumerate(("params", "steps"))}
    blank = jnp.zeros((1, 32, 32, 3))
    given = sharding.to_host(jax.jit(teacher.init)(keys["params"], blank))
    variables = models.with_tail_of(given, sharding.to_host(jax.jit(student.init)(keys, blank)))
    loss_options = {"matched": ("layer2",), "rate_weight": WEIGHT}
    stage = stages.create_stage("stage1", stages.StageSettings(1, BATCH, loss_options=loss_options), student)
    tx = optax.adam(optax.cosine_decay_schedule(0.01, UPDATES))
    train_step = step.create_train_step(stage, module=student, teacher=teacher, tx=tx, mesh=mesh, **PIXELS)
    state = sharding.put_replicated(mesh, step.initial_state(stage, variables, tx=tx))
    given, key = sharding.put_replicated(mesh, given), sharding.put_replicated(mesh, jax.random.key(3))
    rng = np.random.default_rng(0)
    with jax.numpy_dtype_promotion("standard"):  # Adam divides by powers of an integer
        for _ in range(UPDATES):
            batch = {"image": images[rng.integers(0, len(images), BATCH)], "label": np.zeros(BATCH, np.int32)}
            state, _ = train_step(state, given, sharding.put_batch(mesh, batch), key)
    return plain, sharding.to_host(state.variables)


def plain_rate(latents, width, zero_point):
    """Return a rate that codes each channel for itself, whatever the neighbours are."""
    groups = []
    for channel in range(CHANNELS):
        counts = np.bincount(symbols_of(width, zero_point)[latents[..., channel]].ravel())
        low = int(np.flatnonzero(counts)[0])
        lengths = code_lengths(np.append(UNITS * counts[low:], 1))  # the escape is rare
        groups.append(Group((channel,), (low,), (len(counts) - low,), (ALONE, ALONE), False, (lengths,)))
    return Rate("plain", zero_point, (width,) * CHANNELS, tuple(groups), lanes=2)


def payload_bits(latents, rate):
    return 8 * (np.mean([len(encode(latent, rate)) for latent in latents]) - HEADER)


def entropy(symbols):
    """Return the bits of an image's symbols, of [N, h, w, c]: each channel for itself."""
    bits = 0.0
    for channel in np.moveaxis(symbols, -1, 0):
        shares = np.unique(channel, return_counts=True)[1] / channel.size
        bits -= (shares * np.log2(shares)).sum() * channel[0].size
    return bits


@pytest.fixture(scope="module")
def sent():
    """The parameters of a trained density; 8-bit latents of both splits as they are sent, and their range."""
    images = {split: digits(split) for split in ("train", "val")}
    module, variables = train(images["train"])
    density = variables["params"].pop("density")
    ranges = calibrate(module, variables, batches(images["train"]), per_channel=False, **PIXELS)
    variables["ranges"] = {"quantizer": ranges}
    halves = SplitStudent(module, variables, bottleneck=BOTTLENECK, mesh=sharding.create_mesh(1), **PIXELS)
    latents = {split: halves.training_latents(batches(each))[0] for split, each in images.items()}
    return density, latents, halves.static_affine()


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_the_densitys_bits_are_those_of_payloads_within_3_percent(sent, step):
    density, latents, affine = sent
    evaluation, zero_point = latents["val"], int(affine.zero_point)
    width = max(1, round(step / float(affine.scale)))  # of a symbol, in steps of the 8-bit latent
    symbols = symbols_of(width, zero_point)[evaluation]
    arrived = jnp.asarray(dequantize(values_of(width, zero_point)[symbols], affine))
    deployed = jnp.full(len(arrived), width * affine.scale, jnp.float32)

    def bits(latent):
        return float(jnp.mean(FactorizedDensity(CHANNELS).apply({"params": density}, latent, deployed)))

    of_payloads = payload_bits(evaluation, plain_rate(latents["train"], width, zero_point))
    own = payload_bits(evaluation, fit_rate(latents["train"], (width,) * CHANNELS, zero_point=zero_point, id="own"))
    assert bits(arrived) == pytest.approx(of_payloads, rel=0.03)
    assert bits(arrived) == pytest.approx(entropy(symbols), rel=0.03)
    assert bits(jnp.roll(arrived, 1, axis=-1)) > 1.1 * of_payloads  # so each channel's density is its own
    assert own <= 1.01 * bits(arrived)
