"""Payloads and classes over a real connection: what the batcher decodes, and what a client gets."""

import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from bottlefit_jax.codec import wire
from bottlefit_jax.protocol.response import softmax
from bottlefit_jax.serve.batching import BadPayload, Batcher, TailFailed
from tests.bundle import example as bundle_example
from tests.serve import example
from tests.serve.example import infer_request, latents, status_of

RATES = bundle_example.rates(example.SHAPE)


def payload_of(latent, rate="coarse"):
    return wire.encode(latent, RATES.get(rate))


def restored(latent, rate="coarse"):
    return wire.decode(payload_of(latent, rate), RATES)


def undecodable():
    """A payload whose header and check are right, and whose codes are not: only decoding can tell."""
    first, body = bytes([wire.VERSION << 6]), b"\xaa" * 5
    return first + wire._check(first, body, RATES.key) + body


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    parent = tmp_path_factory.mktemp("bundles")
    files = {"tail.onnx": example.onnx_tail()}
    example.write(parent / "rated", **bundle_example.with_rates(files=files))
    example.write(parent / "plain", name="plain", labels=[])
    with example.serving(parents=[parent], max_batch=4, threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


def payload_tensor(*payloads):
    tensor = triton.InferInput("payload", [len(payloads), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(payloads, np.object_).reshape(-1, 1))
    return tensor


@pytest.mark.parametrize("batch", [1, 4])
def test_tritonclient_infers_payloads(client, batch):
    latent = latents(batch)
    outputs = [triton.InferRequestedOutput(name) for name in ("probabilities", "logits", "identity")]
    result = client.infer("digits", [payload_tensor(*map(payload_of, latent))], outputs=outputs)
    logits = example.expected(np.stack([restored(one) for one in latent]))
    np.testing.assert_allclose(result.as_numpy("logits"), logits, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(result.as_numpy("probabilities"), softmax(result.as_numpy("logits")), rtol=1e-6)
    ids = bytes.fromhex(bundle_example.HEAD[:32] + bundle_example.TAIL[:32])
    assert result.as_numpy("identity").tobytes() == batch * ids
    response = result.get_response()
    assert [output.name for output in response.outputs] == ["probabilities", "logits", "identity"]
    assert response.parameters["decode_us"].int64_param > 0
    assert response.parameters["batch"].int64_param == batch


def test_a_raw_latent_has_no_time_of_decoding(client):
    tensor = triton.InferInput("latent", latents().shape, "UINT8")
    tensor.set_data_from_numpy(latents())
    assert "decode_us" not in client.infer("digits", [tensor]).get_response().parameters


def test_tritonclient_asks_for_the_likeliest_classes(client):
    output = triton.InferRequestedOutput("logits", class_count=2)
    result = client.infer("digits", [payload_tensor(payload_of(latents()[0]))], outputs=[output])
    (logits,) = example.expected(restored(latents()[0])[None])
    texts = [text.decode().split(":", 2) for text in result.as_numpy("logits").ravel()]
    best = np.argsort(-logits)[:2]
    labels = bundle_example.manifest()["labels"]
    assert [(int(index), label) for _, index, label in texts] == [(index, labels[index]) for index in best]
    np.testing.assert_allclose([float(value) for value, _, _ in texts], logits[best], rtol=1e-5, atol=1e-2)
    assert [output.name for output in result.get_response().outputs] == ["logits"]


@pytest.mark.parametrize(
    ("name", "payload", "problem"),
    [
        ("plain", payload_of(latents()[0]), "plain has no rates, so it takes no payload"),
        ("digits", b"", "the payload has 0 bytes"),
        ("digits", payload_of(latents()[0])[:-1], "the payload is damaged, or was made with the rates of another"),
        ("digits", undecodable(), "the payload is damaged"),
    ],
)
def test_an_invalid_payload_is_an_invalid_argument(client, name, payload, problem):
    with pytest.raises(InferenceServerException, match=problem) as caught:
        client.infer(name, [payload_tensor(payload)])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_request_without_outputs_gets_the_logits_alone(server):
    with example.channel_to(server.address) as channel:
        method = example.raw_method(channel, "ModelInfer")
        request = infer_request(latents())
        response = pb.ModelInferResponse.FromString(method(request.SerializeToString(), timeout=60))
        assert [(output.name, output.datatype) for output in response.outputs] == [("logits", "FP32")]
        request.outputs.add(name="probabilities").parameters["classification"].int64_param = 5
        code, details = status_of(method, request.SerializeToString())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "classification of probabilities is 5; it must be a whole number from 1 to 4"


def test_statistics_and_config_say_that_payloads_are_decoded(client):
    client.infer("digits", [payload_tensor(payload_of(latents()[0]))])
    (statistics,) = client.get_inference_statistics("digits").model_stats
    assert statistics.inference_stats.compute_input.ns > 0
    parameters = {key: value.string_value for key, value in client.get_model_config("digits").config.parameters.items()}
    assert (parameters["payload"], parameters["rates"]) == ("1", f"{RATES.key:08x}")
    assert "payload" not in client.get_model_config("plain").config.parameters


def test_payloads_and_latents_are_one_batch_and_a_bad_payload_fails_alone():
    """Everything that waits is run together: six images of five requests, one of which cannot be decoded."""
    begun, release, sizes = threading.Semaphore(0), threading.Semaphore(0), []

    def tail(latent):
        sizes.append(len(latent))
        begun.release()
        assert release.acquire(timeout=60)
        return example.expected(latent)

    batcher = Batcher(tail, max_batch=8, delay=0, limit=9, decode=lambda payloads: wire.decode_batch(payloads, RATES))
    try:
        first = batcher.submit(latents(seed=0))
        assert begun.acquire(timeout=60)
        one, two = latents(2, seed=2)
        futures = [
            batcher.submit([payload_of(one)]),
            batcher.submit(latents(1, seed=3)),
            batcher.submit([undecodable()]),
            batcher.submit([payload_of(two), payload_of(one, "lossless")]),
            batcher.submit([payload_of(two), undecodable()]),
        ]
        release.release(2)
        for number in (2, 4):
            with pytest.raises(BadPayload, match="the payload is damaged"):
                futures[number].result(60)
        np.testing.assert_allclose(futures[0].result(60).logits, example.expected(restored(one)[None]), rtol=1e-4)
        np.testing.assert_allclose(futures[1].result(60).logits, example.expected(latents(1, seed=3)), rtol=1e-4)
        both = np.stack([restored(two), one])
        np.testing.assert_allclose(futures[3].result(60).logits, example.expected(both), rtol=1e-4)
        assert sizes == [1, 4]
        assert futures[3].result().batch == 4
        assert futures[1].result().decode_us is None
        assert futures[0].result().decode_us > 0
        assert first.result(60).batch == 1
    finally:
        release.release(9)
        batcher.close()


def test_one_latent_beside_one_bad_payload_is_run_alone():
    """As many images are left as payloads were decoded; they are not the same."""
    begun, release, run = threading.Semaphore(0), threading.Semaphore(0), []

    def tail(latent):
        run.append(latent.copy())
        begun.release()
        assert release.acquire(timeout=60)
        return example.expected(latent)

    batcher = Batcher(tail, max_batch=8, delay=0, limit=9, decode=lambda payloads: wire.decode_batch(payloads, RATES))
    try:
        batcher.submit(latents())
        assert begun.acquire(timeout=60)
        bad, good = batcher.submit([undecodable()]), batcher.submit(latents(seed=3))
        release.release(2)
        assert good.result(60).batch == 1
        np.testing.assert_array_equal(run[1], latents(seed=3))
        with pytest.raises(BadPayload):
            bad.result(60)
    finally:
        release.release(9)
        batcher.close()


def test_a_batch_of_bad_payloads_does_not_run_the_tail_and_a_broken_decoder_does_not_end_it():
    def tail(latent):
        raise AssertionError("no latent is left")

    batcher = Batcher(tail, max_batch=8, delay=0, limit=9, decode=lambda payloads: wire.decode_batch(payloads, RATES))
    for _ in range(2):
        with pytest.raises(BadPayload):
            batcher.submit([undecodable()]).result(60)
    batcher.close()
    batcher = Batcher(example.expected, max_batch=8, delay=0, limit=9)
    with pytest.raises(TailFailed, match="no decoder"):
        batcher.submit([b"payload"]).result(60)
    assert batcher.submit(latents()).result(60).logits.shape == (1, 4)
    batcher.close()
