"""A small valid bundle whose files hold no networks."""

import functools
import hashlib
import json

import numpy as np

from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rates import Rates, make_rates, rates_text

HEAD, TAIL = "a" * 64, "b" * 64
FILES = {"head.tflite": b"lite head", "head.onnx": b"head", "tail.onnx": b"tail", "tail.stablehlo": b"hlo"}
TABLES = "rates.json"
NEW_IN_3 = ("heads", "rates", "default_rate", "extensions")
NEW_IN_4 = ("golden",)
STEPS = {"lossless": 1, "coarse": 8}


def heads(image, latent, precision="int8"):
    """The entries of head.tflite, which has that precision, and of head.onnx."""
    pixels, values = [1, image["height"], image["width"], 3], [1, *latent["shape"]]
    sent = "uint8" if precision == "int8" else "float32"
    tensors = {"litert": (precision, "uint8", sent), "onnx": ("float32", "float32", "float32")}
    return [
        {
            "runtime": runtime,
            "file": {"litert": "head.tflite", "onnx": "head.onnx"}[runtime],
            "precision": each,
            "input": {"dtype": taken, "shape": pixels},
            "output": {"dtype": given, "shape": values},
        }
        for runtime, (each, taken, given) in tensors.items()
    ]


def describe(files):
    """The entries of `files` in a manifest."""
    return {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}


def manifest(**changes):
    """A valid manifest of FILES, as JSON values, of the newest format; `heads` fits the image and the latent."""
    values = {
        "format": 4,
        "name": "digits",
        "version": 3,
        "model": {"name": "resnet18", "options": {"width": 16}, "bottleneck": {"channels": 3}, "num_classes": 4},
        "labels": ["zero", "one", "two", 'the "three"'],
        "image": {"height": 32, "width": 32, "order": "RGB", "dtype": "uint8", "resize": 32},
        "latent": {"shape": [5, 6, 3], "dtype": "uint8", "bits": 8, "scale": 0.02, "zero_point": 128},
        "head": {"id": HEAD},
        "heads": None,
        "tail": {"id": TAIL, "head": HEAD, "onnx": "tail.onnx", "stablehlo": "tail.stablehlo"},
        "local": None,
        "rates": [],
        "default_rate": "raw",
        "golden": None,
        "calibration": {"split": "train", "count": 2, "sha256": "c" * 64},
        "versions": {"bottlefit_jax": "0.1.0"},
        "extensions": {},
        "files": describe(FILES),
        **changes,
    }
    if values["heads"] is None:
        values["heads"] = heads(values["image"], values["latent"])
    return values


def manifest_of_format_3(**changes):
    """The same manifest as version 0.4 wrote it."""
    return {key: item for key, item in manifest(format=3).items() if key not in NEW_IN_4} | changes


def manifest_of_format_2(**changes):
    """The same manifest as version 0.3 wrote it."""
    values = manifest(format=2, head={"id": HEAD, "precision": "int8", "litert": "head.tflite", "onnx": "head.onnx"})
    return {key: item for key, item in values.items() if key not in NEW_IN_3 + NEW_IN_4} | changes


@functools.cache
def _rate(id, steps, shape, zero_point):
    return fit_rate(
        np.random.default_rng(0).integers(0, 256, (32, *shape), np.uint8), steps, zero_point=zero_point, id=id
    )


def rates(shape=(5, 6, 3), *, head=HEAD, zero_point=128, steps=STEPS) -> Rates:
    """Tables for values that are all equally frequent; `steps` has one for each id."""
    shape = tuple(shape)
    fitted = [_rate(id, (step,) * shape[2], shape, zero_point) for id, step in steps.items()]
    return make_rates(fitted, head=head, shape=shape)


def with_rates(tables=None, *, files=FILES, **changes):
    """A bundle with rates as keyword arguments of `write`: `tables`, or what fits the manifest with these changes."""
    latent = changes.get("latent", manifest()["latent"])
    tables = tables or rates(latent["shape"], zero_point=latent["zero_point"])
    files = {**files, TABLES: rates_text(tables).encode()}
    entries = [
        {"id": rate.id, "steps": list(rate.steps), "tables": TABLES, "bytes_mean": 60.5, "bytes_p95": 70, "top1": 74.8}
        for rate in tables.rates
    ]
    return {"rates": entries, "default_rate": tables.rates[-1].id, **changes, "files": files}


def manifest_with_rates(**changes):
    """A valid manifest with rates, as JSON values."""
    values = with_rates(**changes)
    return manifest(**{**values, "files": describe(values["files"])})


def write(folder, *, files=FILES, **changes):
    """Write the files and the manifest with these changes, valid or not, and return the folder.

    The manifest has FILES and, if `files` has them, the tables of rates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if TABLES in files:
        changes["files"] = describe(files)
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)))
    return folder


def write_values(folder, values):
    """Write the files and a manifest of these JSON values, valid or not, and return the folder."""
    write(folder)
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder
