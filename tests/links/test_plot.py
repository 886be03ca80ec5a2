"""The plot of a link measurement: what is drawn, and that nothing is cut off or hidden."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.links import bench as command
from bottlefit_jax.links import report
from bottlefit_jax.links.summary import METHODS, crossings
from tests.links.rows import RATES, example, row


def test_the_plot_is_drawn_with_gaps_and_crossings(tmp_path):
    pytest.importorskip("matplotlib")
    from bottlefit_jax.links import plot

    rows = [*example(5.0), *example(20.0), *[row(method, 5, 0, delay=80.0, error="lost") for method in METHODS]]
    plot.draw(tmp_path / "latency.png", rows, crossings(rows), report.NAMES, "a $title")
    with Image.open(tmp_path / "latency.png") as image:
        assert image.width == 1200
        assert np.asarray(image.convert("L")).std() > 10
    with pytest.raises(UserError, match="nothing to draw"):
        plot.draw(tmp_path / "none.png", rows[-3:], [], report.NAMES, "nothing")


def figure_of(rows, title="a title"):
    plot = pytest.importorskip("bottlefit_jax.links.plot")
    drawing = plot._figure(rows, crossings(rows), report.NAMES, title)
    drawing.draw_without_rendering()
    return drawing


def test_the_legend_has_the_measured_methods_alone():
    rows = [one for one in example() if one.method != "local"] + [row("local", 1, 0, error="export it with --local")]
    (legend,) = figure_of(rows).legends
    assert [text.get_text() for text in legend.get_texts()] == ["split", "JPEG"]


@pytest.mark.parametrize("delays", [[5.0], [5.0, 40.0]])
def test_title_and_legend_are_within_the_plot(delays):
    rows = [one for delay in delays for one in example(delay)]
    drawing = figure_of(rows, "a_bundle_of_a_long_name_int8 version 1, device 8 times slower (model): latency " * 2)
    for one in (drawing._suptitle, *drawing.legends, *drawing.axes):
        box = one.get_tightbbox(drawing.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= drawing.bbox.width + 1
        assert box.y1 <= drawing.bbox.height + 1


def test_the_labels_of_crossings_never_overlap_and_equal_ones_appear_once():
    split = dict(zip(RATES, (271, 110, 140, 45, 45), strict=True))
    rows = []
    for rate, jpeg in zip(RATES, (700, 215, 75, 53, 42), strict=True):
        rows += [row("split", rate, split[rate]), row("jpeg", rate, jpeg), row("local", rate, 134)]
        rows += [row(method, rate, split[rate], delay=40.0) for method in ("split", "jpeg")]
        rows += [row("local", rate, 134, delay=40.0)]
    drawing = figure_of(rows)
    assert [len(axes.texts) for axes in drawing.axes] == [7, 3]
    for axes in drawing.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        lowest = axes.transData.transform((1, 42))[1]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert all(box.y1 < lowest for box in boxes)


def title_of(rows):
    return figure_of(rows, "b").get_suptitle().replace("\n", " ").removesuffix(": b")


def test_the_title_says_on_how_many_links_each_method_is_the_fastest():
    assert title_of(example()) == "Split is fastest on 4 of 5 links, local only on 1"
    close = [row("split", 1, 50, spread=0.1), row("jpeg", 1, 51, spread=0.1)]
    assert title_of([*example(), *[replace(one, delay_ms=40.0) for one in close]]) == (
        "Split is fastest on 4 of 6 links, local only on 1; 1 undecided"
    )
    assert title_of(close) == "No method is clearly the fastest on the only link"
    assert title_of([row("split", 1, 50), row("jpeg", 1, 70)]) == "Split is fastest on the only link"
    assert title_of([row("split", rate, 10 * rate) for rate in RATES]) == "Split takes 2.5 to 1,000 ms an image, p50"
    assert title_of([row("local", 1, 134.0)]) == "Local only takes 134 ms an image, p50"


@pytest.mark.parametrize(
    ("rate", "ms", "text"), [(0.01, 0.5, "0.5 ms"), (5, 40.0, "40 ms"), (10_000, 60_000.0, "60,000 ms")]
)
def test_one_measurement_stands_within_the_frame_with_its_value(rate, ms, text):
    (axes,) = figure_of([row("split", rate, ms)]).axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left * 1.3 < rate < right / 1.3
    assert right < 20 * left
    assert low * 1.3 < ms < high / 1.3
    assert high < 20 * low
    assert [each.get_text() for each in axes.texts] == [text]


def test_the_numbers_of_many_rates_do_not_overlap():
    rows = [row("split", 0.25 * 1.25**step, 50.0, delay=delay) for step in range(28) for delay in (5.0, 20.0, 40.0)]
    drawing = figure_of(rows)
    assert len(drawing.axes) == 3
    for axes in drawing.axes:
        labels = [text for text in axes.get_xticklabels() if text.get_text()]
        boxes = [text.get_window_extent() for text in labels]
        assert len(boxes) >= 4
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert axes.get_xlabel() == "link rate, Mbit/s"
    assert "ms" in drawing.axes[0].get_ylabel()
    assert "ms" in drawing.axes[2].get_ylabel()


def test_equal_lines_are_both_visible():
    rows = [row(method, rate, 10 * rate) for rate in (1, 5) for method in ("split", "jpeg")]
    (axes,) = figure_of(rows).axes
    below, above = axes.lines[:2]
    assert below.get_linewidth() > above.get_linewidth()
    assert (above.get_linestyle(), above.get_markerfacecolor()) == ("--", "none")


def test_without_matplotlib_there_is_a_line_instead_of_a_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bottlefit_jax.links.plot", None)
    monkeypatch.delattr("bottlefit_jax.links.plot", raising=False)  # where another test has imported it
    assert command._draw(tmp_path / "latency.png", example(), "b") is None
    assert capsys.readouterr().err == f"{command.NO_FIGURE}\n"
