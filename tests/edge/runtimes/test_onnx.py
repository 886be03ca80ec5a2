"""Heads in ONNX Runtime, for real."""

import numpy as np
import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.edge.runtimes import open_head
from bottlefit_jax.edge.runtimes.onnx import OnnxHead
from bottlefit_jax.errors import UserError


def test_its_latents_are_those_of_litert(bundle):
    files = read_bundle(bundle)
    heads = [open_head(name, files, threads=1) for name in ("litert", "onnxruntime")]
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for image in images:
        first, second = (head.run(image) for head in heads)
        assert first.dtype == second.dtype == np.float32
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_client_classifies_by_it_as_by_litert(bundle, server, image):
    answers = {}
    for runtime in ("litert", "onnxruntime"):
        with EdgeClient(bundle, server, runtime=runtime, full=True) as client:
            assert client.runtime == runtime
            answers[runtime] = client.infer(image)
    assert answers["litert"].index == answers["onnxruntime"].index
    np.testing.assert_array_equal(answers["litert"].probabilities, answers["onnxruntime"].probabilities)


def test_it_says_what_it_computes_with(bundle):
    assert OnnxHead(bundle / "head.onnx").providers == ("cpu",)


@pytest.mark.parametrize("wrong", [np.zeros((32, 32, 3), np.float32), np.zeros((30, 32, 3), np.uint8)])
def test_an_image_of_another_shape_or_type_is_refused(bundle, wrong):
    with pytest.raises(UserError, match=r"the image is .* this model takes uint8 \(32, 32, 3\)"):
        OnnxHead(bundle / "head.onnx").run(wrong)


def test_a_file_that_is_no_graph_is_an_error_in_one_line(tmp_path):
    path = tmp_path / "head.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"head\.onnx cannot be loaded") as caught:
        OnnxHead(path)
    assert "\n" not in str(caught.value)
