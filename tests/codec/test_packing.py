import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bottlefit_jax.codec.packing import pack_bits, payload_bytes, unpack_bits
from bottlefit_jax.errors import UserError


@st.composite
def latents(draw):
    bits = draw(st.integers(1, 8))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    return bits, draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))


@given(latents())
def test_integers_survive_packing(case):
    bits, q = case
    data = pack_bits(q, bits=bits)
    assert len(data) == payload_bytes(q.shape, bits=bits) == -(-q.size * bits // 8)
    back = unpack_bits(data, q.shape, bits=bits)
    np.testing.assert_array_equal(back, q)
    assert (back.dtype, back.shape) == (np.uint8, q.shape)


@given(st.binary(max_size=40), st.integers(1, 8), st.lists(st.integers(0, 5), max_size=3))
def test_bytes_are_unpacked_if_and_only_if_their_number_fits(data, bits, shape):
    if len(data) == payload_bytes(shape, bits=bits):
        assert unpack_bits(data, shape, bits=bits).max(initial=0) <= 2**bits - 1
    else:
        with pytest.raises(UserError, match=f"got {len(data)} bytes"):
            unpack_bits(data, shape, bits=bits)


def test_bits_are_dense_and_most_significant_first():
    assert pack_bits(np.uint8([1, 2, 3, 0, 3]), bits=2) == bytes([0b01101100, 0b11000000])
    assert pack_bits(np.uint8([5, 250]), bits=8) == bytes([5, 250])


def test_unpacked_integers_are_writable():
    for bits in (4, 8):
        unpack_bits(bytes(bits), (8,), bits=bits)[0] = 1


def test_a_payload_includes_its_dynamic_ranges():
    assert payload_bytes((29, 29, 3), bits=8) == 2523
    assert payload_bytes((29, 29, 3), bits=8, ranges=1) == 2532
    assert payload_bytes((29, 29, 12), bits=4, ranges=12) == 5046 + 108
    assert payload_bytes((3, 3, 1), bits=1) == 2


def test_an_invalid_argument_is_quoted():
    with pytest.raises(UserError, match="value 4 into 2 bits"):
        pack_bits(np.uint8([1, 4]), bits=2)
    with pytest.raises(UserError, match="float32"):
        pack_bits(np.float32([1]), bits=8)
    with pytest.raises(UserError, match="bits is 9"):
        unpack_bits(b"", (0,), bits=9)
    with pytest.raises(UserError, match="negative"):
        payload_bytes((-1, 3), bits=8)
    with pytest.raises(UserError, match="ranges is -1"):
        payload_bytes((1, 3), bits=8, ranges=-1)
