"""Which tail answers: the one of the head that made the latent; every answer names both."""

import threading
import time

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.serve import server as server_file
from tests.bundle import example as bundle_example
from tests.serve import example
from tests.serve.example import infer_request, latents, logits_of, status_of

HEAD, TAIL = bundle_example.HEAD, bundle_example.TAIL
OTHER_HEAD, OTHER_TAIL = "c" * 64, "d" * 64


def of_head(head, tail):
    """Changes of a manifest, for this head and tail."""
    manifest = bundle_example.manifest()
    return {"head": {**manifest["head"], "id": head}, "tail": {**manifest["tail"], "id": tail, "head": head}}


def of(head, **changes):
    """A request that names the head of its latent."""
    return infer_request(latents(), parameters={"head": pb.InferParameter(string_param=head[:32])}, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Versions 1 and 2 of one head, 5 and 6 of another."""
    parent = tmp_path_factory.mktemp("bundles")
    for version in (1, 2):
        example.write(parent / str(version), version=version, seed=version, **of_head(HEAD, TAIL))
    for version in (5, 6):
        example.write(parent / str(version), version=version, seed=version, **of_head(OTHER_HEAD, OTHER_TAIL))
    return parent


@pytest.fixture(scope="module")
def infer(folder):
    with example.serving(parents=[folder]) as running, example.channel_to(running.address) as channel:
        method = example.raw_method(channel, "ModelInfer")
        yield lambda request: pb.ModelInferResponse.FromString(method(request.SerializeToString(), timeout=60))


@pytest.mark.parametrize(
    ("head", "tail", "pinned", "version"),
    [(HEAD, TAIL, "", 2), (OTHER_HEAD, OTHER_TAIL, "", 6), (HEAD, TAIL, "1", 1), (OTHER_HEAD, OTHER_TAIL, "5", 5)],
)
def test_the_newest_tail_of_the_head_answers_with_its_ids(infer, head, tail, pinned, version):
    response = infer(of(head, model_version=pinned))
    assert response.model_version == str(version)
    assert response.parameters["head"].string_param == head[:32]
    assert response.parameters["tail"].string_param == tail[:32]
    np.testing.assert_allclose(logits_of(response), example.expected(latents(), version), rtol=1e-5, atol=1e-2)


def test_a_tail_of_another_head_is_never_run(infer):
    code, details = status_of(lambda request, timeout: infer(request), of(HEAD, model_version="6"))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert details == (
        "the version 6 of model 'digits' belongs to head cccccccccccc…, and the request's latent to head aaaaaaaaaaaa…"
    )
    code, details = status_of(lambda request, timeout: infer(request), of("e" * 64))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "belongs to head aaaaaaaaaaaa…, cccccccccccc…, and the request's latent to head eeeeeeeeeeee…" in details


def test_a_request_without_a_head_is_answered_only_where_one_head_is_loaded(infer):
    code, details = status_of(lambda request, timeout: infer(request), infer_request(latents()))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "tails of several heads are loaded as 'digits'" in details
    assert infer(infer_request(latents(), model_version="5")).model_version == "5"


@pytest.mark.parametrize(
    "parameter",
    [
        pb.InferParameter(string_param="a" * 31),
        pb.InferParameter(string_param="A" * 32),
        pb.InferParameter(int64_param=7),
        pb.InferParameter(),
    ],
)
def test_a_head_that_is_no_id_is_an_invalid_argument(infer, parameter):
    code, details = status_of(
        lambda request, timeout: infer(request), infer_request(latents(), parameters={"head": parameter})
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "it must be the first 32 digits of the head's id" in details


def test_a_bundle_of_another_training_does_not_answer_the_old_head(tmp_path):
    parent = tmp_path / "bundles"
    example.write(parent / "a")
    with (
        example.serving(parents=[parent], repository_port=0) as running,
        example.channel_to(running.address) as channel,
        example.channel_to(f"127.0.0.1:{running.repository_port}") as loading,
    ):
        method = example.raw_method(channel, "ModelInfer")
        data = of(HEAD).SerializeToString()
        assert status_of(method, data)[0] == grpc.StatusCode.OK
        example.write(parent / "a", seed=7, **of_head(OTHER_HEAD, OTHER_TAIL))
        load = pb.RepositoryModelLoadRequest(model_name="digits").SerializeToString()
        example.raw_method(loading, "RepositoryModelLoad")(load, timeout=60)
        assert status_of(method, data)[0] == grpc.StatusCode.FAILED_PRECONDITION
        assert status_of(method, of(OTHER_HEAD).SerializeToString())[0] == grpc.StatusCode.OK


@pytest.fixture
def held(tmp_path, monkeypatch):
    """ModelInfer of a server whose tail runs each batch when it is released, that, and its queue."""
    release = threading.Semaphore(0)

    def open_tail(bundle, **_):
        def tail(latent):
            assert release.acquire(timeout=60)
            return example.expected(latent)

        return tail

    monkeypatch.setattr(server_file, "open_tail", open_tail)
    with (
        example.serving(example.write(tmp_path / "slow")) as running,
        example.channel_to(running.address) as channel,
    ):
        yield example.raw_method(channel, "ModelInfer"), release, example.batcher_of(running)


def with_timeout(parameter):
    return infer_request(latents(), parameters={"timeout": parameter}).SerializeToString()


def test_the_shorter_of_timeout_and_deadline_counts(held):
    method, release, batcher = held
    first = method.future(with_timeout(pb.InferParameter(int64_param=0)), timeout=60)  # 0: none
    example.until(lambda: batcher._queue.is_running)
    second = method.future(with_timeout(pb.InferParameter(int64_param=100_000)), timeout=60)
    third = method.future(with_timeout(pb.InferParameter(int64_param=60_000_000)), timeout=60)
    example.until(lambda: len(batcher) == 2)
    time.sleep(0.15)  # longer than the second one's 0.1 s
    release.release(10)
    assert first.code() == grpc.StatusCode.OK
    assert second.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert third.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("parameter", [pb.InferParameter(int64_param=-1), pb.InferParameter(string_param="5")])
def test_a_timeout_that_is_no_time_is_an_invalid_argument(held, parameter):
    method, _, _ = held
    code, details = status_of(method, with_timeout(parameter))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "it must be a whole number of microseconds, 0 for none" in details
