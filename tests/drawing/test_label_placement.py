import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottlefit_jax.drawing.label_placement import spaced


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(1, 30)), min_size=1, max_size=15))
def test_labels_keep_their_order_and_never_overlap(labels):
    wanted, heights = zip(*labels, strict=True)
    bottoms = spaced(wanted, heights, 0, 1000)
    order = np.argsort(wanted, kind="stable")
    ends = [bottoms[index] + heights[index] for index in order]
    assert all(bottoms[after] >= end - 1e-6 for end, after in zip(ends, order[1:], strict=False))
    assert min(bottoms) >= 0
    assert max(ends) <= 1000 + 1e-6


def test_labels_with_room_stay_and_neighbours_share_the_way():
    assert spaced([500, 100], [20, 20], 0, 1000) == [500, 100]
    assert spaced([100, 110], [20, 20], 0, 1000) == pytest.approx([95, 115])
    assert spaced([-5, 995], [20, 20], 0, 1000) == [0, 980]
    assert spaced([5, 6], [20, 20], 0, 30) == [0, 20]
