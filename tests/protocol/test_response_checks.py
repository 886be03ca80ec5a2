"""Responses as our server makes them, and those that the device refuses."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from bottlefit_jax.errors import ProtocolError
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.response import ResponseMaker, softmax
from bottlefit_jax.protocol.response_checks import (
    classes_of,
    identity_problem,
    largest_response,
    microseconds,
    vector_of,
)
from tests.protocol.conftest import CLASSES

LIKELIEST = Output("probabilities", 3)
NUMBERS = {"queue_us": 7, "tail_us": 1234, "batch": 3}


@pytest.fixture
def logits():
    return np.arange(CLASSES, dtype=np.float32)[None]


@pytest.fixture
def response(manifest, logits):
    return ResponseMaker(manifest).response("mine", logits, NUMBERS)


def problem_of(response, manifest, version=""):
    return identity_problem(response, manifest, "edge:8001", version)


def test_a_response_of_our_server_passes_every_check(response, manifest, logits):
    assert problem_of(response, manifest) is None
    assert problem_of(response, manifest, version="3") is None
    np.testing.assert_array_equal(vector_of(response, manifest), logits[0])
    assert {name: microseconds(response, name) for name in NUMBERS} == NUMBERS
    assert (response.id, response.model_name, response.model_version) == ("mine", "digits", "3")
    assert response.ByteSize() < largest_response(manifest)


def test_one_maker_makes_independent_responses(manifest, logits):
    maker = ResponseMaker(manifest)
    first = maker.response("first", logits, NUMBERS)
    second = maker.response("", np.repeat(logits + 1, 2, axis=0), {})
    assert (first.id, list(first.outputs[0].shape), len(first.raw_output_contents)) == ("first", [1, CLASSES], 1)
    assert (second.id, list(second.outputs[0].shape), len(second.raw_output_contents)) == ("", [2, CLASSES], 1)
    assert microseconds(second, "tail_us") is None


def test_the_ids_may_be_an_output(response, manifest):
    response.parameters.clear()
    response.outputs.add(name="identity", datatype="UINT8", shape=[1, 32])
    response.raw_output_contents.append(bytes.fromhex(manifest.head.id[:32] + manifest.tail.id[:32]))
    assert problem_of(response, manifest) is None
    response.raw_output_contents[1] = bytes(31)
    assert "does not say which tail answered" in problem_of(response, manifest)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ("", "edge:8001 does not say which tail answered"),
        ("c" * 32, "edge:8001 answered with the tail of another head, cccccccccccc…; this bundle's is aaaaaaaaaaaa…"),
        ("\x1b[31m" + "d" * 27, "the tail of another head, [31mdddddddd…"),
    ],
)
def test_another_head_is_a_problem_in_one_line(response, manifest, head, problem):
    response.parameters["head"].string_param = head
    assert problem in problem_of(response, manifest)
    assert problem_of(response, manifest).isprintable()


def test_another_version_than_the_one_asked_for_is_a_problem(response, manifest):
    assert problem_of(response, manifest, version="4") == "edge:8001 answered with version 3 of digits, not 4"
    response.model_version = ""
    assert problem_of(response, manifest, version="4") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "scores"}, "answered with scores instead of logits"),
        (
            {"datatype": "FP16"},
            r"answered with FP16 \[1, 4\] in 16 raw bytes; one image's logits are FP32 \[1, 4\] in 16",
        ),
        ({"shape": [2, CLASSES]}, r"FP32 \[2, 4\] in 16 raw bytes"),
        ({"raw": bytes(15)}, "in 15 raw bytes"),
        ({"raw": None}, "in 0 raw bytes"),
        ({"raw": np.full(CLASSES, np.nan, "<f4").tobytes()}, "NaN or infinite"),
        ({"raw": np.full(CLASSES, np.inf, "<f4").tobytes()}, "NaN or infinite"),
    ],
)
def test_unusable_logits_are_a_protocol_error(manifest, changes, message):
    declared = {"name": "logits", "datatype": "FP32", "shape": [1, CLASSES], "raw": bytes(4 * CLASSES), **changes}
    raw = declared.pop("raw")
    response = pb.ModelInferResponse(raw_output_contents=[] if raw is None else [raw])
    response.outputs.add(**declared)
    with pytest.raises(ProtocolError, match=message):
        vector_of(response, manifest)


def test_no_output_or_two_of_that_name_are_a_protocol_error(response, manifest):
    with pytest.raises(ProtocolError, match="answered with nothing instead of logits"):
        vector_of(pb.ModelInferResponse(), manifest)
    response.outputs.add(name="logits", datatype="FP32", shape=[1, CLASSES])
    with pytest.raises(ProtocolError, match="answered with logits, logits instead of logits"):
        vector_of(response, manifest)


@pytest.mark.parametrize(("value", "expected"), [({"int64_param": -1}, None), ({"uint64_param": 5}, 5), ({}, 0)])
def test_microseconds_are_not_negative(response, value, expected):
    response.parameters["tail_us"].CopyFrom(pb.InferParameter(**value))
    assert microseconds(response, "tail_us") == expected


def answer(manifest, logits, *outputs):
    return ResponseMaker(manifest).response("", logits, NUMBERS, outputs)


def test_each_output_is_what_was_asked_for(manifest, logits):
    both = np.concatenate([logits, -logits])
    response = answer(manifest, both, LIKELIEST, Output("identity"), Output("logits", 1))
    shapes = [(output.name, output.datatype, list(output.shape)) for output in response.outputs]
    assert shapes == [("probabilities", "BYTES", [2, 3]), ("identity", "UINT8", [2, 32]), ("logits", "BYTES", [2, 1])]
    assert response.raw_output_contents[1] == 2 * bytes.fromhex(manifest.head.id[:32] + manifest.tail.id[:32])
    assert response.raw_output_contents[2] == b'\x16\0\0\x003.000000:3:the "three"\x10\0\0\x00-0.000000:0:zero'


def test_the_likeliest_classes_pass_every_check(manifest, logits):
    response = answer(manifest, logits, LIKELIEST)
    assert problem_of(response, manifest) is None
    probabilities = softmax(logits)[0]
    found = classes_of(response, manifest, 3)
    assert [index for index, _ in found] == [3, 2, 1]
    np.testing.assert_allclose([value for _, value in found], probabilities[[3, 2, 1]], atol=1e-6)


def test_all_probabilities_pass_every_check(manifest, logits):
    response = answer(manifest, logits, Output("probabilities"))
    np.testing.assert_array_equal(vector_of(response, manifest, "probabilities"), softmax(logits)[0])


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5, 0.5], [-0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]])
def test_probabilities_that_are_none_are_a_protocol_error(manifest, logits, values):
    response = answer(manifest, logits, Output("probabilities"))
    response.raw_output_contents[0] = np.array(values, np.float32).tobytes()
    with pytest.raises(ProtocolError, match="probabilities that sum to"):
        vector_of(response, manifest, "probabilities")


def other_type(response):
    response.outputs[0].datatype = "FP32"


def other_count(response):
    response.outputs[0].shape[1] = 4


def no_raw(response):
    response.raw_output_contents.pop()


def without(response):
    response.outputs[0].name = "logits\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_type, r"answered with FP32 \[1, 3\]; the 3 likeliest classes are BYTES \[1, 3\]"),
        (other_count, r"answered with BYTES \[1, 4\]"),
        (no_raw, "invalid classes: 0 raw bytes are not 3 elements"),
        (without, "answered with logits instead of probabilities"),
    ],
)
def test_classes_that_were_not_asked_for_are_a_protocol_error(manifest, logits, change, message):
    response = answer(manifest, logits, LIKELIEST)
    change(response)
    with pytest.raises(ProtocolError, match=message) as caught:
        classes_of(response, manifest, 3)
    assert str(caught.value).isprintable()
