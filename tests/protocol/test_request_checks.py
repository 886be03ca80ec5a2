"""Requests that the server refuses, and those that it takes."""

import math
import time

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.protocol.input_checks import input_of
from bottlefit_jax.protocol.request import RequestMaker
from bottlefit_jax.protocol.request_checks import Refused, deadline_of, head_of, outputs_of, version_of
from tests.protocol.conftest import CLASSES, SHAPE, latents

MAX_BATCH = 4


def infer_request(latent, **changes):
    return pb.ModelInferRequest(
        **{"model_name": "digits", "inputs": tensor(shape=latent.shape), "raw_input_contents": [latent.tobytes()]}
        | changes
    )


def tensor(**changes):
    return [
        pb.ModelInferRequest.InferInputTensor(
            **{"name": "latent", "datatype": "UINT8", "shape": [1, *SHAPE], **changes}
        )
    ]


def typed(**contents):
    return {"inputs": tensor(contents=pb.InferTensorContents(**contents)), "raw_input_contents": []}


def parameter(name, **value):
    return {"parameters": {name: pb.InferParameter(**value)}}


def output(name="logits", **parameters):
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)


def classes(name="logits", **value):
    return {"outputs": [output(name, classification=pb.InferParameter(**value))]}


WRONG = {
    "no input": ({"inputs": []}, "the request has 0 inputs"),
    "two inputs": ({"inputs": tensor() * 2}, "the request has 2 inputs; it must have one, latent or payload"),
    "name": ({"inputs": tensor(name="x" * 1000)}, "the input is named 'xxxxx"),
    "dtype": ({"inputs": tensor(datatype="FP32")}, "the input's datatype is 'FP32'; it must be UINT8"),
    "flat": ({"inputs": tensor(shape=[90])}, r"shape is \[90\]; it must be \[batch, 5, 6, 3\] with a batch of 1 to 4"),
    "swapped": ({"inputs": tensor(shape=[1, 3, 5, 6])}, r"the input's shape is \[1, 3, 5, 6\]"),
    "empty batch": ({"inputs": tensor(shape=[0, 5, 6, 3]), "raw_input_contents": [b""]}, "batch of 1 to 4"),
    "negative": ({"inputs": tensor(shape=[-1, 5, 6, 3])}, "batch of 1 to 4"),
    "huge": ({"inputs": tensor(shape=[2**62, 5, 6, 3])}, "batch of 1 to 4"),
    "many dims": ({"inputs": tensor(shape=[1] * 1000)}, "the input's shape is"),
    "too many": ({"inputs": tensor(shape=[5, 5, 6, 3]), "raw_input_contents": [bytes(450)]}, "batch of 1 to 4"),
    "short": ({"raw_input_contents": [bytes(89)]}, r"have 89 bytes; the shape \[1, 5, 6, 3\] has 90"),
    "long": ({"raw_input_contents": [bytes(91)]}, "have 91 bytes"),
    "two raw": ({"raw_input_contents": [bytes(90)] * 2}, "has 2 raw contents for one input"),
    "nothing": ({"raw_input_contents": []}, "the input has no contents"),
    "both": ({"inputs": typed(uint_contents=[1])["inputs"]}, "raw and typed contents"),
    "typed short": (typed(uint_contents=[1] * 89), "uint_contents has 89 numbers"),
    "typed large": (typed(uint_contents=[256] * 90), "uint_contents has 256; the largest UINT8 is 255"),
    "typed other": (typed(fp32_contents=[1] * 90), "the contents are fp32_contents; UINT8 goes into uint_contents"),
    "typed bytes": (typed(bytes_contents=[bytes(90)]), "the contents are bytes_contents"),
    "shared memory": (
        {"inputs": tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="x")})},
        "shared memory",
    ),
    "output": (
        {"outputs": [output("scores")]},
        "the requested output is 'scores'; it must be logits, probabilities, identity",
    ),
    "output twice": ({"outputs": [output()] * 2}, "the output logits is requested twice"),
    "output parameter": (
        {"outputs": [output(shared_memory_region=pb.InferParameter(string_param="x"))]},
        "the requested output logits has the parameters 'shared_memory_region'; it may have classification",
    ),
    "no classes": (classes(int64_param=0), "classification of logits is 0; it must be a whole number from 1 to 4"),
    "negative classes": (classes(int64_param=-1), "classification of logits is -1"),
    "too many classes": (
        classes(int64_param=5),
        "classification of logits is 5; it must be a whole number from 1 to 4",
    ),
    "text as classes": (classes("probabilities", string_param="3"), "classification of probabilities is '3'"),
    "half a class": (classes(double_param=1.5), "classification of logits is 1.5"),
    "true as classes": (classes(bool_param=True), "classification of logits is True"),
    "empty classes": (classes(), "classification of logits is None"),
    "classes of ids": (classes("identity", int64_param=1), "classification is requested of identity"),
    "version": ({"model_version": "newest"}, "the model's version is 'newest'; it must be a number"),
    "long version": ({"model_version": "9" * 500}, "it must be a number"),
    "short head": (parameter("head", string_param="a" * 31), "the first 32 digits of the head's id"),
    "upper-case head": (parameter("head", string_param="A" * 32), "the first 32 digits of the head's id"),
    "number as head": (parameter("head", int64_param=7), "the parameter head is 7; it must be the first 32 digits"),
    "empty head": (parameter("head"), "the parameter head is None"),
    "negative timeout": (
        parameter("timeout", int64_param=-1),
        "the parameter timeout is -1; it must be a whole number",
    ),
    "text as timeout": (parameter("timeout", string_param="5"), "the parameter timeout is '5'"),
    "empty timeout": (parameter("timeout"), "the parameter timeout is None"),
}


def check(request, manifest):
    """All checks of the server; the latents."""
    version_of(request.model_version)
    head_of(request)
    deadline_of(request, math.inf)
    outputs_of(request, manifest)
    return input_of(request, manifest, max_batch=MAX_BATCH)


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_request_is_refused_with_the_first_problem(case, manifest):
    changes, message = WRONG[case]
    with pytest.raises(Refused, match=message) as caught:
        check(infer_request(latents(), **changes), manifest)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("batch", [1, MAX_BATCH])
def test_raw_and_typed_contents_are_the_same_latents(manifest, batch):
    latent = latents(batch)
    in_raw = check(infer_request(latent), manifest)
    changes = typed(uint_contents=latent.ravel().tolist())
    changes["inputs"][0].shape[0] = batch
    in_typed = check(infer_request(latent, **changes), manifest)
    np.testing.assert_array_equal(in_raw, latent)
    np.testing.assert_array_equal(in_typed, latent)
    assert in_raw.dtype == in_typed.dtype == np.uint8


def test_a_request_of_a_device_passes_every_check(manifest):
    maker, latent = RequestMaker(manifest), latents()
    request = maker.request(latent.tobytes(), "", 60)
    np.testing.assert_array_equal(check(request, manifest), latent)
    assert head_of(request) == manifest.head.id[:32]
    assert version_of(request.model_version) is None
    assert time.monotonic() + 30 < deadline_of(request, math.inf) <= time.monotonic() + 60


def test_a_maker_changes_all_that_differs_between_requests(manifest):
    maker = RequestMaker(manifest)
    maker.request(latents(seed=1).tobytes(), "", 60)
    request, latent = maker.request(latents(seed=2).tobytes(), "12", 1e-9), latents(seed=2)
    np.testing.assert_array_equal(check(request, manifest), latent)
    assert version_of(request.model_version) == 12
    assert request.parameters["timeout"].int64_param == 1  # 0 would be none
    assert len(request.raw_input_contents) == 1


def test_the_earlier_one_of_deadline_and_timeout_counts(manifest):
    request, now = infer_request(latents()), time.monotonic()
    assert deadline_of(request, math.inf) == math.inf
    request.parameters["timeout"].int64_param = 0  # none
    assert deadline_of(request, now + 5) == now + 5
    request.parameters["timeout"].int64_param = 60_000_000
    assert now + 60 <= deadline_of(request, math.inf) <= time.monotonic() + 60
    assert deadline_of(request, now + 5) == now + 5
    request.parameters["timeout"].uint64_param = 2**64 - 1
    assert deadline_of(request, now + 5) == now + 5


def values():
    """Parameters of any kind."""
    numbers = st.integers(-(2**63), 2**63 - 1)
    return st.one_of(
        numbers.map(lambda value: pb.InferParameter(int64_param=value)),
        st.integers(0, 4).map(lambda value: pb.InferParameter(int64_param=value)),
        st.text(max_size=5).map(lambda value: pb.InferParameter(string_param=value)),
        st.floats().map(lambda value: pb.InferParameter(double_param=value)),
        st.booleans().map(lambda value: pb.InferParameter(bool_param=value)),
        st.just(pb.InferParameter()),
    )


def named(*names):
    return st.sampled_from(names) | st.text(max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            named("logits", "probabilities", "identity"),
            st.dictionaries(named("classification"), values(), max_size=2),
        ),
        max_size=3,
    )
)
def test_any_outputs_are_outputs_or_refused(manifest, outputs):
    request = pb.ModelInferRequest(outputs=[output(name, **parameters) for name, parameters in outputs])
    try:
        asked = outputs_of(request, manifest)
    except Refused as refused:
        problem = str(refused)
        assert problem.isprintable()
        return
    assert [one.name for one in asked] == ([name for name, _ in outputs] or ["logits"])
    assert all(0 <= one.classes <= CLASSES for one in asked)
