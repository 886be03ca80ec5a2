"""Tails of bundles, run by each backend."""

import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle
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
