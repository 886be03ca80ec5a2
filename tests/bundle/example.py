"""A small valid bundle whose files hold no networks."""

import hashlib
import json

HEAD, TAIL = "a" * 64, "b" * 64
FILES = {"head.tflite": b"lite head", "head.onnx": b"head", "tail.onnx": b"tail", "tail.stablehlo": b"hlo"}


def manifest(**changes):
    """A valid manifest of FILES, as JSON values."""
    return {
        "format": 2,
        "name": "digits",
        "version": 3,
        "model": {"name": "resnet18", "options": {"width": 16}, "bottleneck": {"channels": 3}, "num_classes": 4},
        "labels": ["zero", "one", "two", 'the "three"'],
        "image": {"height": 32, "width": 32, "order": "RGB", "dtype": "uint8", "resize": 32},
        "latent": {"shape": [5, 6, 3], "dtype": "uint8", "bits": 8, "scale": 0.02, "zero_point": 128},
        "head": {"id": HEAD, "precision": "int8", "litert": "head.tflite", "onnx": "head.onnx"},
        "tail": {"id": TAIL, "head": HEAD, "onnx": "tail.onnx", "stablehlo": "tail.stablehlo"},
        "local": None,
        "calibration": {"split": "train", "count": 2, "sha256": "c" * 64},
        "versions": {"bottlefit_jax": "0.1.0"},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in FILES.items()
        },
        **changes,
    }


def write(folder, *, files=FILES, **changes):
    """Write the files and the manifest with these changes, valid or not, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)))
    return folder


def write_values(folder, values):
    """Write the files and a manifest of these JSON values, valid or not, and return the folder."""
    write(folder)
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder
