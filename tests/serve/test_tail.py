"""Tails of bundles, run by each backend."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle, write_manifest
from bottlefit_jax.bundle.golden import FILE, Golden, write_golden
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.tail import open_tail
from tests.serve import example


def opened(folder, backend="onnx"):
    return open_tail(read_bundle(folder), backend=backend, threads=1, max_batch=6)


def stablehlo():
    import jax
    import jax.export

    (batch,) = jax.export.symbolic_shape("batch")
    latent = jax.ShapeDtypeStruct((batch, *example.SHAPE), np.uint8)
    function = jax.jit(lambda x: x.reshape(x.shape[0], -1).astype(np.float32) @ example.matrix())
    return bytes(jax.export.export(function)(latent).serialize())


@pytest.mark.parametrize("backend", ["onnx", "jax"])
def test_logits_of_every_batch(tmp_path, backend):
    files = {"tail.stablehlo": stablehlo()} if backend == "jax" else {}
    tail = opened(example.write(tmp_path, files=files), backend)
    for batch in range(1, 7):
        latent = example.latents(batch, seed=batch)
        np.testing.assert_allclose(tail(latent), example.expected(latent), rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("backend", ["onnx", "jax"])
def test_a_file_that_is_no_tail_is_an_error_in_one_line(tmp_path, backend):
    with pytest.raises(UserError, match=r"tail\.(onnx|stablehlo) cannot be loaded") as caught:
        opened(example.write(tmp_path, files={"tail.onnx": b"nothing"}), backend)
    assert "\n" not in str(caught.value)


def test_a_tail_that_does_not_fit_its_manifest_is_refused(tmp_path):
    model = {**example.bundle_example.manifest()["model"], "num_classes": 5}
    with pytest.raises(UserError, match=r"gives float32 \[1, 4\] where its manifest says float32 \[1, 5\]"):
        opened(example.write(tmp_path / "classes", model=model, labels=[]))
    latent = {**example.bundle_example.manifest()["latent"], "shape": [5, 5, 3]}
    with pytest.raises(UserError, match="cannot be run"):
        opened(example.write(tmp_path / "shape", latent=latent))


def golden_bundle(folder, change=lambda logits: logits):
    """A bundle whose golden images have the logits of its tail, or others."""
    example.write(folder)
    sent = example.latents(5)
    images = np.zeros((5, 32, 32, 3), np.uint8)
    latents = {"litert": sent, "onnx": sent.astype(np.float32)}
    write_golden(folder / FILE, Golden(images, latents, sent, {}, change(example.expected(sent)), None))
    return write_manifest(folder, dataclasses.replace(read_bundle(folder).manifest, golden=FILE)).folder


def test_openvino_gives_the_logits_of_every_batch_as_far_as_its_precision_goes(tmp_path):
    tail = opened(golden_bundle(tmp_path), "openvino")
    for batch in range(1, 7):
        latent = example.latents(batch, seed=batch)
        expected = example.expected(latent)
        assert np.abs(tail(latent) - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:, ::-1].copy(), "gives . of 5 golden images of .* another class"),
        (lambda logits: 1.1 * logits, "0 of 5 golden images .* another class, and logits that are 9.* off"),
    ],
)
def test_a_tail_that_openvino_computes_otherwise_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        opened(golden_bundle(tmp_path, change), "openvino")


def test_openvino_needs_golden_images_and_its_package(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="has no golden images to check that with: export it again"):
        opened(example.write(tmp_path / "b"), "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO cannot be imported: .*; pip install openvino"):
        opened(golden_bundle(tmp_path / "c"), "openvino")


def test_a_file_that_openvino_cannot_load_is_an_error_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"tail\.onnx cannot be loaded") as caught:
        opened(example.write(tmp_path, files={"tail.onnx": b"nothing"}), "openvino")
    assert "\n" not in str(caught.value)


def test_openvino_sends_no_usage_statistics(tmp_path):
    """Its package for them starts a process and a connection as soon as OpenVINO is imported."""
    folder = golden_bundle(tmp_path)
    code = (
        "import os, sys\n"
        "os.fork = lambda: sys.exit('a process was forked')\n"
        "from bottlefit_jax.bundle import read_bundle\n"
        "from bottlefit_jax.serve.tail import open_tail\n"
        f"open_tail(read_bundle({str(folder)!r}), backend='openvino', threads=1, max_batch=2)\n"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
