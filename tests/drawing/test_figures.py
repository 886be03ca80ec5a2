"""Figures: their titles stay inside, and their axes have ticks whatever the data."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottlefit_jax.drawing.axes import LEAST_FACTOR, decorate_log_axis, log_limits, number
from bottlefit_jax.drawing.figures import SMALL, WIDTH, figure, title


@pytest.mark.parametrize("text", ["12 bytes", "word " * 60, "a_name_without_a_space" * 12, "$x$ " * 30, "one\ntwo"])
def test_a_title_of_any_length_is_inside_the_image_and_complete(text):
    plot = figure(4.0)
    title(plot, text)
    plot.subplots()
    plot.draw_without_rendering()
    box = plot._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= plot.bbox.width
    assert 0 <= box.y0 < box.y1 <= plot.bbox.height
    shown = plot.get_suptitle()
    assert "".join(shown.split()) == "".join(text.split())


def test_the_smallest_letters_are_legible_where_a_plot_is_800_pixels_wide():
    assert SMALL * 800 / (72 * WIDTH) >= 11  # pixels


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=5))
def test_a_logarithmic_axis_has_ticks_that_do_not_crowd(values):
    low, high = log_limits(values)
    assert low * 1.49 < min(values) <= max(values) < high / 1.49
    assert high / low >= 0.999 * LEAST_FACTOR
    axes = figure(3.0).subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decorate_log_axis(axes.xaxis)
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (2.0, "2"),
        (50.0, "50"),
        (0.476837, "0.477"),
        (99.97, "100"),
        (1340.4, "1,340"),
        (1000.0, "1,000"),
        (1e6, "1,000,000"),
    ],
)
def test_a_tick_is_a_plain_number(value, text):
    assert number(value) == text
