"""What a client gets: tritonclient as it is published, and messages that the test makes."""

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from bottlefit_jax.serve.log import CALL_DELAY
from tests.bundle.example import HEAD, TAIL
from tests.serve import example
from tests.serve.example import infer_request, latents, logits_of, status_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    parent = tmp_path_factory.mktemp("bundles")
    example.write(parent / "digits" / "3", version=3)
    example.write(parent / "digits" / "12", version=12, seed=12)
    example.write(parent / "other", name="other", labels=[])
    return parent


@pytest.fixture(scope="module")
def server(folder):
    with example.serving(parents=[folder], max_batch=4, threads=1, metrics_port=0, repository_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def operator(server):
    """A client of the port that loads."""
    with triton.InferenceServerClient(f"127.0.0.1:{server.repository_port}") as operator:
        yield operator


@pytest.fixture(scope="module")
def infer(server):
    """A function from ModelInferRequest to ModelInferResponse."""
    with example.channel_to(server.address) as channel:
        method = example.raw_method(channel, "ModelInfer")
        parse = pb.ModelInferResponse.FromString
        yield lambda request, **options: parse(method(request.SerializeToString(), **options))


def test_tritonclient_gets_health_metadata_config_and_index(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "3")
    assert not client.is_model_ready("digits", "4")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata().name == "bottlefit-jax"
    metadata = client.get_model_metadata("digits", as_json=True)
    assert metadata == {
        "name": "digits",
        "versions": ["3", "12"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "latent", "datatype": "UINT8", "shape": ["-1", "5", "6", "3"]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": ["-1", "4"]} for name in ("logits", "probabilities")],
    }
    config = client.get_model_config("digits").config
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "head": HEAD,
        "tail": TAIL,
        "format": "4",
    }
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (4, 0)
    assert ([*config.input[0].dims], [*config.output[0].dims]) == ([5, 6, 3], [4])
    index = client.get_model_repository_index(as_json=True)["models"]
    assert [(line["name"], line["version"], line["state"]) for line in index] == [
        ("digits", "3", "READY"),
        ("digits", "12", "READY"),
        ("other", "3", "READY"),
    ]


@pytest.mark.parametrize("batch", [1, 4])
def test_tritonclient_infers(client, batch):
    latent = latents(batch)
    tensor = triton.InferInput("latent", latent.shape, "UINT8")
    tensor.set_data_from_numpy(latent)
    result = client.infer("digits", [tensor], outputs=[triton.InferRequestedOutput("logits")], request_id="mine")
    np.testing.assert_allclose(result.as_numpy("logits"), example.expected(latent, 12), rtol=1e-5, atol=1e-2)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("digits", "12", "mine")
    assert response.parameters["batch"].int64_param == batch
    assert response.parameters["tail_us"].int64_param >= 0
    assert response.parameters["queue_us"].int64_param >= 0


def test_tritonclient_infers_compressed_and_asynchronously(client):
    latent, answers = latents(), []
    tensor = triton.InferInput("latent", latent.shape, "UINT8")
    tensor.set_data_from_numpy(latent)
    done = threading.Event()
    client.async_infer(
        "digits",
        [tensor],
        callback=lambda result, error: (answers.append(error or result), done.set()),
        model_version="3",
        compression_algorithm="gzip",
    )
    assert done.wait(10)
    np.testing.assert_allclose(answers[0].as_numpy("logits"), example.expected(latent), rtol=1e-5, atol=1e-2)


def test_typed_contents_are_inferred(infer):
    latent = latents(2)
    tensor = pb.ModelInferRequest.InferInputTensor(name="latent", datatype="UINT8", shape=latent.shape)
    tensor.contents.uint_contents.extend(latent.ravel().tolist())
    response = infer(infer_request(latent, inputs=[tensor], raw_input_contents=[]))
    np.testing.assert_allclose(logits_of(response), example.expected(latent, 12), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": []}, "the request has 0 inputs; it must have one, latent"),
        ({"raw_input_contents": [bytes(89)]}, "the raw contents have 89 bytes; the shape [1, 5, 6, 3] has 90"),
        ({"model_version": "newest"}, "the model's version is 'newest'; it must be a number, or empty for the newest"),
        (
            {"parameters": {"head": pb.InferParameter(int64_param=7)}},
            "the parameter head is 7; it must be the first 32",
        ),
        ({"parameters": {"timeout": pb.InferParameter(string_param="5")}}, "the parameter timeout is '5'; it must be"),
    ],
)
def test_an_invalid_request_is_an_invalid_argument(infer, changes, message):
    code, details = status_of(infer, infer_request(latents(), **changes))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(message)


def test_unknown_models_are_not_found_and_unknown_methods_unimplemented(infer, server, client):
    assert status_of(infer, infer_request(latents(), name="nope"))[0] == grpc.StatusCode.NOT_FOUND
    assert status_of(infer, infer_request(latents(), model_version="4"))[0] == grpc.StatusCode.NOT_FOUND
    with pytest.raises(InferenceServerException, match="no model 'nope' is loaded; loaded: digits, other"):
        client.get_model_metadata("nope")
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        client.get_trace_settings()


def test_a_message_over_the_limit_is_refused_before_it_is_parsed(infer):
    code, details = status_of(infer, infer_request(latents(), raw_input_contents=[bytes(1 << 20)]))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    # compressed it is small on the wire, and large only after that
    code, _ = status_of(
        infer, infer_request(latents(), raw_input_contents=[bytes(1 << 26)]), compression=grpc.Compression.Gzip
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_largest_batch_fits_raw_and_typed(infer):
    latent = np.full((4, *example.SHAPE), 255, np.uint8)
    tensor = pb.ModelInferRequest.InferInputTensor(name="latent", datatype="UINT8", shape=latent.shape)
    tensor.contents.uint_contents.extend(latent.ravel().tolist())
    assert infer(infer_request(latent)).parameters["batch"].int64_param == 4
    assert infer(infer_request(latent, inputs=[tensor], raw_input_contents=[])).outputs[0].shape == [4, 4]


def test_load_and_unload_while_requests_run(folder, operator, client, infer):
    example.write(folder / "digits" / "20", version=20, seed=20)
    stop, codes = threading.Event(), []

    def send():
        while not stop.is_set():
            codes.append(status_of(infer, infer_request(latents()))[0])

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send) for _ in range(4)]
        try:
            for _ in range(3):
                operator.load_model("digits")
                assert client.is_model_ready("digits", "20")
                example.write(folder / "digits" / "12", version=12, seed=int(time.time_ns() % 1000))
            assert set(codes) == {grpc.StatusCode.OK}
            operator.unload_model("digits")
            assert not client.is_model_ready("digits")
            operator.load_model("digits")
        finally:
            stop.set()
    assert all(sender.result() is None for sender in senders)
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
    assert infer(infer_request(latents())).model_version == "20"


def test_a_damaged_bundle_is_a_status_and_the_old_version_stays(folder, operator, infer):
    before = infer(infer_request(latents(), name="other"))
    path = example.write(folder / "other", name="other", labels=[], seed=8) / "tail.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InferenceServerException, match=r"FAILED_PRECONDITION.*tail.onnx was changed or damaged"):
        operator.load_model("other")
    assert logits_of(infer(infer_request(latents(), name="other"))).tolist() == logits_of(before).tolist()


def test_a_client_cannot_load_files_of_its_own(operator):
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        operator.load_model("digits", config="{}", files={"file:1/model.onnx": b"x"})
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        operator.load_model("../../etc")


@contextlib.contextmanager
def logged(caplog, count):
    """Yield a list that holds the records of the calls in the block, once there are `count` of them."""
    example.on_loop(asyncio.sleep(2 * CALL_DELAY))  # until the lines of earlier calls are written
    records = []
    with caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"):
        caplog.clear()
        yield records
        deadline = time.monotonic() + 60
        while len(records) < count and time.monotonic() < deadline:
            time.sleep(0.01)
            records[:] = [record for record in caplog.records if record.getMessage() == "call"]


def test_only_the_port_on_the_loopback_loads_and_unloads(server, client, caplog):
    with logged(caplog, 2) as records:
        for change in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match=r"PERMISSION_DENIED.*--repository-port"):
                change("digits")
    assert client.is_model_ready("digits")
    for record, method in zip(records, ("RepositoryModelLoad", "RepositoryModelUnload"), strict=True):
        fields = record.fields
        assert (fields["method"], fields["model"], fields["status"]) == (method, "digits", "PERMISSION_DENIED")
        assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", fields["peer"])
    refused = 'bottlefit_refused_calls_total{method="RepositoryModelUnload",status="PERMISSION_DENIED"} 1.0'
    assert refused in metrics_of(server)


def test_the_log_says_who_loaded_and_unloaded_what(operator, caplog):
    with caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"):
        operator.unload_model("digits")
        operator.load_model("digits")
    events = [(record.getMessage(), record.fields) for record in caplog.records if "model" in record.fields]
    assert [(event, fields["model"], fields["versions"]) for event, fields in events] == [
        ("unloaded", "digits", []),
        ("loaded", "digits", [3, 12, 20]),
    ]
    (opened,) = {tuple(record.fields["providers"]) for record in caplog.records if record.getMessage() == "tail opened"}
    assert opened == ("cpu",)
    assert all(fields["peer"].startswith("ipv4:127.0.0.1:") for _, fields in events)


def test_statistics_count_answered_and_refused_requests(client, infer):
    def of_other():
        (statistics,) = client.get_inference_statistics("other").model_stats
        return statistics

    before = of_other()
    infer(infer_request(latents(3), name="other"))
    infer(infer_request(latents(), name="other"))
    status_of(infer, infer_request(latents(), name="other", raw_input_contents=[b"short"]))
    after = of_other()
    assert (after.name, after.version) == ("other", "3")
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 2
    stats, earlier = after.inference_stats, before.inference_stats
    for name in ("success", "queue", "compute_infer"):
        assert getattr(stats, name).count - getattr(earlier, name).count == 2, name
    assert stats.fail.count - earlier.fail.count == 1
    assert stats.success.ns > earlier.success.ns
    assert stats.success.ns >= stats.queue.ns + stats.compute_infer.ns
    sizes = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    assert sum(sizes.values()) == after.execution_count
    assert sizes[3] >= 1
    assert after.last_inference >= before.last_inference
    everything = client.get_inference_statistics(as_json=True)["model_stats"]
    assert [(model["name"], model["version"]) for model in everything] == [
        ("digits", "3"),
        ("digits", "12"),
        ("digits", "20"),
        ("other", "3"),
    ]
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.get_inference_statistics("nope")


def metrics_of(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as response:
        return response.read().decode()


def test_metrics_have_the_names_of_loaded_models_only(server, infer):
    assert status_of(infer, infer_request(latents(), name="z" * 50))[0] == grpc.StatusCode.NOT_FOUND
    infer(infer_request(latents(2), name="other"))
    text = metrics_of(server)
    labels = 'model="other",version="3"'
    assert re.search(r'bottlefit_requests_total{model="other",status="OK",version="3"} \d', text)
    assert 'bottlefit_requests_total{model="",status="NOT_FOUND",version=""}' in text
    for name in ("queue_seconds", "tail_seconds", "total_seconds", "batch_size"):
        assert re.search(rf'bottlefit_{name}_bucket{{le="[^"]+",{labels}}} \d', text), name
    for name in ("queue_length", "received_bytes_total", "sent_bytes_total"):
        assert re.search(rf"bottlefit_{name}{{{labels}}} \d", text), name
    assert 'bottlefit_refused_calls_total{method="ModelInfer",status="NOT_FOUND"}' in text
    assert "bottlefit_bundles_left_out 0.0" in text
    assert "zzzz" not in text


def test_each_call_is_a_line_of_json(infer, caplog):
    from bottlefit_jax.serve.log import JsonFormatter

    with logged(caplog, 2) as records:
        infer(infer_request(latents(), id="my-7"))
        status_of(infer, infer_request(latents(), name="nope\n"))
    good, bad = (json.loads(JsonFormatter().format(record)) for record in records)
    assert (good["request"], good["model"], good["status"], good["batch"]) == ("my-7", "digits", "OK", 1)
    assert {"queue_us", "tail_us", "total_us", "bytes_in", "bytes_out", "time", "version"} <= good.keys()
    assert bad["request"].startswith("made-")
    assert bad["status"] == "NOT_FOUND"
    assert (good["level"], bad["level"]) == ("info", "warning")
    assert bad["peer"].startswith("ipv4:127.0.0.1:")
    assert "\n" not in JsonFormatter().format(records[1])
