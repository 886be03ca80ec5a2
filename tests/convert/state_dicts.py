"""State dicts with arbitrary values, and what the tests of the command do with them."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax import models
from bottlefit_jax.convert import to_torch
from bottlefit_jax.convert.__main__ import main

WIDTH = ("--option", "width=8")


def state_dict(name="resnet18", *, seed=0, num_classes=7, bottleneck=None, counters=True, **options):
    """The state dict of a network with arbitrary values, PyTorch's names to arrays."""
    rng = np.random.default_rng(seed)
    options = options or ({"width": 8} if name == "resnet18" else {})
    module = models.create(name, num_classes=num_classes, bottleneck=bottleneck, **options)
    size = module.spec.image_size
    abstract = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), abstract)
    out = to_torch(name, variables, bottleneck=bottleneck, **options)
    norms = [key.removesuffix("running_var") for key in out if counters and key.endswith("running_var")]
    return out | {f"{key}num_batches_tracked": np.asarray(len(key), np.int64) for key in norms}


def head_of(student):
    """What head-network-distillation would have saved of a student: 4 layers `extractor`, the rest `module_seq`."""
    names = {f"encoder.{i}": f"extractor.{i}" for i in range(4)}
    names |= {f"encoder.{i}": f"module_seq.{i - 4}" for i in (4, 5, 6)}
    names |= {f"decoder.{i}": f"module_seq.{i + 3}" for i in range(12)}
    found = {}
    for key, value in student.items():
        _, mark, rest = key.partition("bottleneck.")
        if mark:
            half, number, leaf = rest.split(".", 2)
            found[f"{names[f'{half}.{number}']}.{leaf}"] = value
    return found


def run(*args):
    return main([str(arg) for arg in args])


def import_(source, target, *more, model="resnet18", options=WIDTH):
    return run("--model", model, "--input", source, "--output", target, *options, *more)


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def save_torch(path, arrays, **beside):
    import torch

    tensors = collections.OrderedDict((key, torch.from_numpy(np.array(value))) for key, value in arrays.items())
    torch.save({"model": tensors, **beside} if beside else tensors, path)
    return path


def equal(given, expected):
    assert given.keys() == expected.keys()
    for key, value in expected.items():
        assert given[key].shape == value.shape, key
        assert given[key].tobytes() == np.ascontiguousarray(value).tobytes(), key
