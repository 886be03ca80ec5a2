"""Payloads as a server takes them, and those that it refuses before anything is decoded."""

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.codec import wire
from bottlefit_jax.protocol.byte_tensors import pack
from bottlefit_jax.protocol.input_checks import input_of
from bottlefit_jax.protocol.request import RequestMaker
from bottlefit_jax.protocol.request_checks import Refused
from tests.bundle import example
from tests.protocol.conftest import SHAPE, latents

MAX_BATCH = 4
RATES = example.rates(SHAPE)
PAYLOADS = [wire.encode(latent, RATES.rates[1]) for latent in latents(MAX_BATCH)]
LARGEST = 4 + 5 * 6 * 3


def request(raw=None, **tensor):
    tensor = {"name": "payload", "datatype": "BYTES", "shape": [1, 1], **tensor}
    message = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(**tensor)])
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def check(message, manifest, rates=RATES):
    return input_of(message, manifest, max_batch=MAX_BATCH, rates=rates)


def other_rates():
    return example.rates(SHAPE, steps={"lossless": 1, "coarse": 9})


def test_a_payload_may_be_raw_or_typed_bytes_or_uint8(manifest):
    payload = PAYLOADS[0]
    values = pb.InferTensorContents(uint_contents=list(payload))
    for message in (
        request(pack([payload])),
        request(contents=pb.InferTensorContents(bytes_contents=[payload])),
        request(payload, datatype="UINT8", shape=[1, len(payload)]),
        request(datatype="UINT8", shape=[1, len(payload)], contents=values),
    ):
        assert check(message, manifest) == [payload]


def test_a_device_and_a_batch_pass_every_check(manifest):
    assert check(RequestMaker(manifest, payload=True).request(PAYLOADS[0], "", 1), manifest) == PAYLOADS[:1]
    assert check(request(pack(PAYLOADS), shape=[4, 1]), manifest) == PAYLOADS


def test_a_raw_latent_needs_no_rates(manifest):
    message = RequestMaker(manifest).request(latents().tobytes(), "", 1)
    for rates in (RATES, None):
        np.testing.assert_array_equal(check(message, manifest, rates), latents())


CASES = {
    "no rates": (request(pack(PAYLOADS[:1])), None, "digits has no rates, so it takes no payload: send the raw latent"),
    "type": (request(b"", datatype="FP32"), RATES, "the payload's datatype is 'FP32'; it must be BYTES or UINT8"),
    "shape": (request(b"", shape=[1]), RATES, r"the payload's shape is \[1\]; as BYTES it must be \[batch, 1\]"),
    "huge batch": (request(b"", shape=[2**62, 1]), RATES, "with a batch of 1 to 4"),
    "no batch": (request(b"", shape=[0, 1]), RATES, "with a batch of 1 to 4"),
    "two a row": (request(b"", shape=[1, 2]), RATES, r"the payload's shape is \[1, 2\]"),
    "no length": (request(PAYLOADS[0]), RATES, "raw bytes are not 1 element of BYTES"),
    "claims": (request(b"\xff\xff\xff\x7fabc"), RATES, "7 raw bytes are not 1 element of BYTES"),
    "more": (request(pack(PAYLOADS[:2])), RATES, "raw bytes are not 1 element of BYTES"),
    "fewer": (request(pack(PAYLOADS[:2]), shape=[3, 1]), RATES, "raw bytes are not 3 elements of BYTES"),
    "uint8 batch": (request(b"", datatype="UINT8", shape=[2, 9]), RATES, r"as UINT8 it must be \[1, n\]"),
    "uint8 huge": (request(b"", datatype="UINT8", shape=[1, 2**40]), RATES, f"with n from 1 to {LARGEST}"),
    "uint8 short": (request(b"abc", datatype="UINT8", shape=[1, 4]), RATES, "the raw contents have 3 bytes"),
    "typed": (request(contents=pb.InferTensorContents(uint_contents=[1])), RATES, "BYTES goes into bytes_contents"),
    "typed two": (
        request(contents=pb.InferTensorContents(bytes_contents=PAYLOADS[:2])),
        RATES,
        "bytes_contents has 2 elements; the shape has 1",
    ),
    "nothing": (request(), RATES, "the input has no contents"),
    "empty": (request(pack([b""])), RATES, f"the payload has 0 bytes; one of this bundle has 4 to {LARGEST}"),
    "long": (request(pack([bytes(LARGEST + 1)])), RATES, f"the payload has {LARGEST + 1} bytes"),
    "version": (request(pack([b"\xff" + PAYLOADS[0][1:]])), RATES, "the payload is of version 3"),
    "rate": (request(pack([b"\x4f" + PAYLOADS[0][1:]])), RATES, "the payload names rate 15 in mode 0"),
    "bundle": (request(pack(PAYLOADS[:1])), other_rates(), "damaged, or was made with the rates of another bundle"),
    "damaged": (request(pack([PAYLOADS[0][:-1]])), RATES, "damaged, or was made with the rates of another bundle"),
    "one of two": (
        request(pack([PAYLOADS[0], PAYLOADS[1][:-1]]), shape=[2, 1]),
        RATES,
        "payload 1: the payload is damaged",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_invalid_payload_is_refused_in_one_line(case, manifest):
    message, rates, problem = CASES[case]
    with pytest.raises(Refused, match=problem) as caught:
        check(message, manifest, rates)
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=120) | st.binary(max_size=100).map(lambda data: pack([data])),
    st.sampled_from(["BYTES", "UINT8"]),
    st.lists(st.integers(-1, 130), max_size=3) | st.just([1, 1]),
)
def test_any_input_is_payloads_or_refused(manifest, raw, datatype, shape):
    try:
        payloads = check(request(raw, datatype=datatype, shape=shape), manifest)
    except Refused:
        return
    assert 1 <= len(payloads) <= MAX_BATCH
    assert all(len(payload) <= LARGEST for payload in payloads)
