import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottlefit_jax.codec import huffman

counts = st.lists(st.integers(0, 100_000), min_size=2, max_size=300).filter(lambda values: sum(map(bool, values)) > 1)


@given(counts)
def test_a_code_is_complete_and_gives_every_symbol_that_occurs_a_code(values):
    lengths = huffman.code_lengths(values)
    assert huffman.kraft_sum(lengths) == 1 << huffman.MAX_BITS
    assert ((lengths > 0) == (np.array(values) > 0)).all()
    assert lengths.max() <= huffman.MAX_BITS


@given(counts)
def test_the_decoding_table_reads_every_code_whatever_follows(values):
    lengths = huffman.code_lengths(values)
    codes, table = huffman.canonical_codes(lengths), huffman.decoding_table(lengths)
    for symbol in np.flatnonzero(lengths):
        rest = huffman.MAX_BITS - int(lengths[symbol])
        first = int(codes[symbol]) << rest
        assert (table[[first, first + (1 << rest) - 1]] == symbol * 16 + lengths[symbol]).all()


def test_four_symbols_have_the_code_that_a_book_gives_them():
    assert huffman.code_lengths([10, 1, 1, 4]).tolist() == [1, 3, 3, 2]
    assert huffman.canonical_codes(np.array([1, 3, 3, 2], np.uint8)).tolist() == [0b0, 0b110, 0b111, 0b10]


@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5], [7, 7, 7], [1000, 1, 1, 1, 1, 1]])
def test_no_complete_code_is_shorter(values):
    best = min(
        sum(count * length for count, length in zip(values, lengths, strict=True))
        for lengths in itertools.product(range(1, 6), repeat=len(values))
        if sum(2.0**-length for length in lengths) == 1
    )
    assert int(huffman.code_lengths(values) @ np.array(values)) == best


def test_a_length_is_limited_where_huffman_would_need_more_bits():
    fibonacci = [1, 1]
    while len(fibonacci) < 25:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = huffman.code_lengths(fibonacci)
    assert lengths.max() == huffman.MAX_BITS
    assert huffman.kraft_sum(lengths) == 1 << huffman.MAX_BITS
