import json
import shutil

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.bundle import Manifest, write_manifest
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.errors import BottleFitError
from tests.bundle import example
from tests.edge.conftest import LATENT, manifest
from tests.edge.server import TYPE_FP32


def latent_of(image):
    """The latent of an image: in this bundle the pixels themselves."""
    return image[1:30, 2:31]


def refusal(call, *args, **kwargs):
    """The text of the error that a call raises; it must be one line."""
    with pytest.raises(BottleFitError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_image_is_classified_by_head_and_tail(bundle, server, tail, image, image_file):
    with EdgeClient(bundle, server) as client:
        for given in (image, image_file, str(image_file), Image.fromarray(image)):
            prediction = client.infer(given)
            assert prediction.index == latent_of(image).sum() % 10
            assert prediction.label == f"class {prediction.index}"
            assert prediction.probability == pytest.approx(np.exp(5) / (np.exp(5) + 9))
            assert prediction.probabilities.sum() == pytest.approx(1)
        assert prediction.top[0] == (prediction.label, prediction.index, prediction.probability)
        assert len(prediction.top) == 5
    request = tail.requests[0]
    assert (request.model_name, request.model_version) == ("digits", "")
    assert request.parameters["head"].string_param == "a" * 32
    assert "timeout" not in request.parameters  # gRPC's deadline says the same
    assert 0 < tail.times_left[0] <= 60
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [("latent", "UINT8", [1, *LATENT])]
    assert list(request.raw_input_contents) == [latent_of(image).tobytes()]
    assert tail.config_requests == 1


def test_the_times_on_the_server_are_not_part_of_the_network(bundle, server, tail, image):
    tail.seconds = 0.05
    with EdgeClient(bundle, server) as client:
        alone = client.infer(image).timings
        assert (alone.tail, alone.queue) == (None, None)
        assert 50 < alone.network < alone.total
        tail.parameters = {"tail_us": 40_000, "queue_us": 5_000}
        timings = client.infer(image).timings
        assert (timings.tail, timings.queue) == (40, 5)
        assert timings.network >= 5
        parts = timings.preprocess + timings.head + timings.quantizer + timings.network + timings.queue + timings.tail
        assert timings.total == pytest.approx(parts, abs=1)
        for impossible in ({"tail_us": 10**12}, {"tail_us": -4}):
            tail.parameters = impossible
            assert client.infer(image).timings.tail is None


def test_an_int8_head_gives_the_latent_itself(bundle, server, tail, image, monkeypatch):
    class Int8:
        input_shape, output_shape, output_dtype = (32, 32, 3), (29, 29, 3), np.dtype(np.uint8)
        scale, zero_point = 0.0625, 128

        def __init__(self, path, threads):
            assert threads == 2

        def run(self, pixels):
            return latent_of(pixels) // 2

    monkeypatch.setattr("bottlefit_jax.edge.runtimes.litert.Interpreter", Int8)
    with EdgeClient(bundle, server, threads=2) as client:
        assert client.infer(image).timings.quantizer == 0
    assert tail.requests[0].raw_input_contents[0] == (latent_of(image) // 2).tobytes()
    Int8.zero_point = 127
    assert "quantises with scale 0.0625 and zero point 127, its manifest says" in refusal(
        EdgeClient, bundle, server, threads=2
    )


def test_the_whole_network_runs_without_a_server(bundle, image):
    with EdgeClient(bundle, None) as client:
        prediction = client.infer_local(image)
        assert prediction.index == image.reshape(-1)[:10].argmax()
        assert (prediction.timings.network, prediction.timings.tail) == (0, 0)
        assert prediction.bytes_sent.total == 0
        assert "no server was given" in refusal(client.infer, image)


def test_a_device_needs_only_the_files_that_it_runs(bundle, server, image, tmp_path):
    for name in ("manifest.json", "head.tflite"):
        shutil.copy(bundle / name, tmp_path / name)
    with EdgeClient(tmp_path, server) as client:
        client.infer(image)
        assert "local.tflite is missing" in refusal(client.infer_local, image)
    head = bytearray((bundle / "head.tflite").read_bytes())
    head[len(head) // 2] ^= 1
    (tmp_path / "head.tflite").write_bytes(head)
    assert "head.tflite was changed or damaged" in refusal(EdgeClient, tmp_path, server)


def test_a_head_that_does_not_match_the_manifest_is_refused(bundle, server, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "b")
    wide = {**manifest()["latent"], "shape": [29, 29, 4]}
    heads = example.heads(manifest()["image"], wide, "float32")
    write_manifest(folder, Manifest.from_json({**manifest(), "latent": wide, "heads": heads}))
    assert "head.tflite makes float32 [29, 29, 3] of an image" in refusal(EdgeClient, folder, server)
    write_manifest(folder, Manifest.from_json({**manifest(), "local": None}))
    assert "no network to run locally: export it with --local" in refusal(EdgeClient(folder, None).infer_local, None)


def test_a_tail_of_another_training_is_refused_before_an_image_is_sent(bundle, server, tail, image):
    tail.head = "c" * 64
    with EdgeClient(bundle, server) as client:
        message = refusal(client.infer, image)
        assert f"the tail on {server} belongs to another head, cccccccccccc…; this bundle's is aaaaaaaaaaaa…" in message
        tail.head = None
        assert "does not say which head it is for" in refusal(client.connect)
    assert not tail.requests


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dims": [29, 29, 4]}, "its input is latent TYPE_UINT8 [29, 29, 4] instead of latent TYPE_UINT8 [29, 29, 3]"),
        ({"dims": [-1, 29, 29, 3]}, "its input is latent"),
        ({"input_type": TYPE_FP32}, "its input is latent TYPE_FP32 [29, 29, 3] instead of"),
        ({"classes": 11}, "its output is logits TYPE_FP32 [11] instead of logits TYPE_FP32 [10]"),
        ({"batch": 0}, "its input is"),
    ],
)
def test_a_tail_of_other_shapes_is_refused(bundle, server, tail, change, problem):
    vars(tail).update(change)
    with EdgeClient(bundle, server) as client:
        message = refusal(client.connect)
        assert f"the tail digits on {server} does not fit this bundle" in message
        assert problem in message


def test_a_batch_may_be_part_of_the_shape(bundle, server, tail, image):
    tail.batch, tail.dims = 0, [-1, 29, 29, 3]
    with EdgeClient(bundle, server) as client:
        client.infer(image)


def _no_output(response):
    del response.outputs[:]


def _short(response):
    response.raw_output_contents[0] = response.raw_output_contents[0][:-1]


def _no_raw(response):
    del response.raw_output_contents[:]


def _wide(response):
    response.outputs[0].shape[1] = 11


def _nan(response):
    response.raw_output_contents[0] = np.full(10, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("alter", "problem"),
    [
        (_no_output, "answered with nothing instead of logits"),
        (_short, "answered with FP32 [1, 10] in 39 raw bytes; one image's logits are FP32 [1, 10] in 40"),
        (_no_raw, "in 0 raw bytes"),
        (_wide, "FP32 [1, 11]"),
        (_nan, "NaN"),
    ],
)
def test_an_invalid_answer_is_one_line(bundle, server, tail, image, alter, problem):
    tail.alter = alter
    with EdgeClient(bundle, server) as client:
        assert problem in refusal(client.infer, image)


@pytest.mark.parametrize(
    "change",
    [
        *({"deadline_ms": value} for value in (0, -1, float("inf"), float("nan"), 1e300)),
        *({"threads": value} for value in (0, 10**9)),
        {"version": 0},
        {"tls_cert": "cert.pem"},
        {"token": "a\nb"},
    ],
)
def test_an_invalid_argument_is_refused(bundle, server, change):
    refusal(EdgeClient, bundle, server, **change)


@pytest.mark.parametrize("server", ["localhost", "localhost:0", "localhost:65536", ":1", "::1:80", "http://a:80"])
def test_a_server_is_a_host_and_a_port(bundle, server):
    assert "must be HOST:PORT" in refusal(EdgeClient, bundle, server)


def test_labels_may_be_missing(bundle, server, image, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "b")
    write_manifest(folder, Manifest.from_json({**manifest(), "labels": []}))
    assert not json.loads((folder / "manifest.json").read_text())["labels"]
    with EdgeClient(folder, server) as client:
        prediction = client.infer(image)
        assert prediction.label == str(prediction.index)


def test_a_latent_of_another_head_is_sent_as_the_bundle_sends_its_own(bundle, server, tail, image):
    with EdgeClient(bundle, server) as client:
        own = client.infer(image)
        latent = latent_of(image).astype(np.float32) / 16 - 8
        for given in (latent, latent_of(image)):
            prediction = client.infer_latent(given)
            assert prediction.index == own.index
            assert (prediction.timings.preprocess, prediction.timings.head) == (0, 0)
        assert {request.raw_input_contents[0] for request in tail.requests} == {latent_of(image).tobytes()}
        assert "the latent is uint8 [3, 3]; this bundle's is uint8 or float32 [29, 29, 3]" in refusal(
            client.infer_latent, np.zeros((3, 3), np.uint8)
        )
        assert "not finite" in refusal(client.infer_latent, np.full(LATENT, np.nan, np.float32))
