"""The texts of Triton's classification extension, and the BYTES tensors that hold them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bottlefit_jax.protocol import byte_tensors, classification
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.response import ResponseMaker, softmax
from bottlefit_jax.protocol.response_checks import classes_of


def packed(*texts):
    return byte_tensors.pack(text.encode() for text in texts)


def test_texts_are_as_triton_writes_them():
    values = np.array([[0.5, 1 / 3, 12345.678, 1e-9], [-1, -1, np.inf, 0]], np.float32)
    raw = classification.write(values, 2, [])
    assert byte_tensors.unpack(raw, 4) == [b"12345.677734:2", b"0.500000:0", b"inf:2", b"0.000000:3"]
    labelled = classification.write(values, 1, ["a", "b", "c: d", "ä"])
    assert byte_tensors.unpack(labelled, 2) == [b"12345.677734:2:c: d", b"inf:2:c: d"]


def test_of_equal_values_the_lower_index_comes_first():
    assert classification.read(classification.write(np.full((1, 4), 0.25), 3, []), 3, 4) == [
        (0, 0.25),
        (1, 0.25),
        (2, 0.25),
    ]


@given(st.lists(st.integers(-2, 2) | st.floats(width=32), min_size=1, max_size=20), st.integers(1, 20))
def test_the_likeliest_are_the_first_of_a_stable_order(values, count):
    values, count = np.array(values, np.float32), min(count, len(values))
    expected = np.argsort(-values, kind="stable")[:count]
    assert classification.likeliest(values, count).tolist() == expected.tolist()


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_a_tensor_of_bytes_comes_back(items):
    assert byte_tensors.unpack(byte_tensors.pack(items), len(items)) == items


@given(st.binary(max_size=60), st.integers(0, 5))
@example(b"\xff\xff\xff\xff", 1)  # 4 GiB are claimed
@example(b"\x00\x00\x00\x00" * 3, 2)
def test_any_bytes_are_so_many_elements_or_an_error(raw, count):
    try:
        items = byte_tensors.unpack(raw, count)
    except ValueError:
        return
    assert len(items) == count
    assert byte_tensors.pack(items) == raw


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # texts from a pattern
@given(
    st.lists(st.binary(max_size=30) | st.from_regex(r"[01]\.[0-9]{1,8}:[0-9]{1,4}(:.*)?").map(str.encode), max_size=4),
    st.integers(0, 4),
)
def test_any_texts_are_classes_or_an_error(texts, count):
    try:
        found = classification.read(byte_tensors.pack(texts), count, 1000)
    except ValueError:
        return
    assert len(found) == count == len({index for index, _ in found})
    assert all(0 <= value <= 1 and 0 <= index < 1000 for index, value in found)
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["nan:1"], "is not probability:index"),
        (["1e-3:1"], "is not probability:index"),
        (["-0.1:1"], "is not probability:index"),
        (["0.5"], "is not probability:index"),
        (["0.5:-1"], "is not probability:index"),
        (["0.5:1_0"], "is not probability:index"),
        (["0.5:٣"], "is not probability:index"),
        (["1.1:1"], "is not a probability up to 1 and an index below 10"),
        (["0.5:10"], "is not a probability up to 1 and an index below 10"),
        (["0.2:1", "0.3:2"], "the probabilities do not descend"),
        (["0.3:1", "0.2:1"], "a class is there twice"),
        (["0.3:1", "0.2:2", "0.1:3"], "raw bytes are not 2 elements"),
    ],
)
def test_texts_that_are_no_classes_are_an_error(texts, problem):
    with pytest.raises(ValueError, match=problem):
        classification.read(packed(*texts), min(len(texts), 2), 10)


@pytest.mark.parametrize("labels", [(), tuple(f"some label {index:03}" for index in range(1000))])
def test_five_of_a_thousand_classes_cost_200_bytes(manifest, labels):
    """Of the whole answer, 154 more are the ids of head and tail and the times, which every answer has."""
    model = dataclasses.replace(manifest.model, num_classes=1000)
    large = dataclasses.replace(manifest, model=model, labels=labels)
    logits = np.random.default_rng(0).normal(0, 3, (1, 1000)).astype(np.float32)
    maker = ResponseMaker(large)
    numbers = {"queue_us": 100_000, "decode_us": 100_000, "tail_us": 100_000, "batch": 8}
    response = maker.response("", logits, numbers, (Output("probabilities", 5),))
    assert [index for index, _ in classes_of(response, large, 5)] == np.argsort(-softmax(logits)[0])[:5].tolist()
    whole = maker.response("", logits, numbers).ByteSize()
    assert whole > 4000
    with_parameters = response.ByteSize()
    response.parameters.clear()
    assert response.ByteSize() <= 200
    assert with_parameters - response.ByteSize() <= 160
