"""The reference's numbers (tests/goldens/README.md): its weights drawn by rule, its outputs read from files."""

import functools
import hashlib
import json
import pathlib
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

FOLDER = pathlib.Path(__file__).parents[1] / "goldens"


@functools.cache
def read_manifest():
    return json.loads((FOLDER / "manifest.json").read_text())


def draw_weights(entry):
    """Draw a reference state dict by the rule of the README, and compare its checksum."""
    rng = np.random.Generator(np.random.PCG64(entry["seed"]))
    norms = {key.removesuffix(".running_mean") for key, _ in entry["keys"] if key.endswith(".running_mean")}
    digest, weights = hashlib.sha256(), {}
    for key, shape in entry["keys"]:
        prefix, leaf = key.rsplit(".", 1)
        if prefix in norms and leaf in ("weight", "running_var"):
            value = rng.uniform(0.5, 1.5, shape) * (damping(key) if leaf == "weight" else 1.0)
        elif prefix in norms:
            value = rng.standard_normal(shape) * 0.1
        elif leaf == "bias":
            value = rng.standard_normal(shape) * 0.01
        else:
            inputs = shape[0] * shape[2] * shape[3] if key in entry["conv_transpose"] else np.prod(shape[1:])
            value = rng.standard_normal(shape) * np.sqrt(2 / inputs)
        weights[key] = value.astype("<f4")
        digest.update(weights[key].tobytes())
    assert digest.hexdigest() == entry["weights_sha256"]
    return weights


def damping(key):
    if key.endswith(".bn3.weight"):
        return 0.2
    return 0.7 if re.fullmatch(r"features\.\d+\.conv\.3\.weight", key) else 1.0


def draw_images(entry):
    """Draw the fixture's input, NHWC."""
    drawn = np.random.Generator(np.random.PCG64(entry["input_seed"])).standard_normal(entry["input_shape"])
    return drawn.astype(np.float32).transpose(0, 2, 3, 1)


class Comparison:
    """Expected arrays of one fixture; `check` compares ours with them within the tolerance of the README."""

    def __init__(self, entry):
        self.entry, self.worst = entry, {}
        self.file = dict(np.load(FOLDER / entry["file"]))

    def check(self, name, got):
        errors = self.entry["errors_f32_vs_f64"][name]
        allowed = max(20 * errors["max_abs_err_f32"], 2e-5 * errors["rms"])
        if name == "logits":
            return self._hold(name, got, self.file["logits"], allowed)
        f = np.ascontiguousarray(np.asarray(got).transpose(0, 3, 1, 2), np.float64)
        assert f.shape == tuple(self.file[f"{name}/shape"])
        self._hold(f"{name}/head", f[:, :8, :4, :4], self.file[f"{name}/head"], allowed)
        self._hold(f"{name}/tail", f[:, -8:, -4:, -4:], self.file[f"{name}/tail"], allowed)
        self._hold(f"{name}/channel_mean", f.mean((0, 2, 3)), self.file[f"{name}/channel_mean"], allowed)
        stats = np.array([f.mean(), f.std(), f.min(), f.max(), np.abs(f).max()])
        self._hold(f"{name}/stats", stats, self.file[f"{name}/stats"], allowed)
        if f"{name}/full" in self.file:
            self._hold(f"{name}/full", f, self.file[f"{name}/full"], allowed)
        v = np.random.Generator(np.random.PCG64(self.entry["proj_seed"])).standard_normal((4, f.size))
        allowed = max(20 * errors["proj_max_abs_err_f32"], 2e-5 * errors["rms"])
        self._hold(f"{name}/proj", v @ f.reshape(-1) / np.sqrt(f.size), self.file[f"{name}/proj"], allowed)

    def _hold(self, what, got, expected, allowed):
        error = np.abs(np.asarray(got, np.float64) - expected).max()
        self.worst[what] = error / allowed
        assert error <= allowed, f"{self.entry['file']} {what}: off by {error:.3g}, allowed {allowed:.3g}"


@pytest.fixture(scope="session")
def golden():
    """Call it with a fixture's name: `.weights` (PyTorch's names), `.images` (NHWC), `.comparison`, `.entry`."""

    def load(fixture):
        entry = next(e for e in read_manifest()["fixtures"] if e["file"] == f"{fixture}.npz")
        model = read_manifest()["models"][entry["model"]]
        return SimpleNamespace(
            entry=entry, weights=draw_weights(model), images=draw_images(entry), comparison=Comparison(entry)
        )

    return load


@pytest.fixture(scope="session")
def draw_variables():
    """Call it with a module and an image size: variables drawn by NumPy, without compiling an `init`."""

    def draw(module, size):
        rng = np.random.default_rng(0)
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        abstract = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), images))

        def value(leaf, shape):
            if leaf.startswith("kernel"):
                return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
            return np.full(shape, leaf in ("scale", "var"))

        drawn = {path: jnp.asarray(value(path[-1], leaf.shape), jnp.float32) for path, leaf in abstract.items()}
        return traverse_util.unflatten_dict(drawn)

    return draw
