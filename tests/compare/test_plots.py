"""The comparison's plots: every method is named, nothing hides anything, and the axes fit the data."""

import itertools

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.compare import latency_plot, plots
from bottlefit_jax.drawing.figures import SMALL
from bottlefit_jax.errors import UserError
from tests.compare.example import codec, comparison, everything, failed, local, row

BOTTLEFIT = row("bottlefit", "BottleFit", "8 channels", top1=84.7, std=0.2, sent=656.0)
JPEG = codec("jpeg", "JPEG", (5, 15.0, 690), (50, 78.1, 1270), (70, 84.6, 1590), (95, 85.0, 2968))


def panel(plot):
    (axes,) = plot.axes
    return axes


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def overlaps(axes):
    boxes = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]


@pytest.mark.parametrize("draw", [plots.rate_accuracy, latency_plot.latency])
def test_twelve_methods_make_a_plot(tmp_path, draw):
    assert draw(tmp_path / "p.png", everything())
    with Image.open(tmp_path / "p.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 800
    assert 0.02 < (pixels != 255).any(axis=-1).mean() < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_every_method_is_named_and_no_label_hides_another():
    axes = panel(plots._rate_accuracy(everything()))
    same = ["vanilla", "kd", "hnd", "ghnd", "bottlefit-patch", "cr-bq", "autoencoder"]
    assert {*same, "BottleFit", "JPEG", "WebP", "SPINN"} <= set(texts(axes))
    assert "local" not in texts(axes)
    assert overlaps(axes) == []
    assert overlaps(panel(latency_plot._latency(everything()))) == []


def test_names_in_a_column_keep_the_order_of_their_markers():
    axes = panel(plots._rate_accuracy(everything()))
    heights = {text.get_text(): text.get_window_extent().y0 for text in axes.texts}
    column = ["cr-bq", "vanilla", "autoencoder", "kd", "hnd", "ghnd", "bottlefit-patch"]
    assert sorted(column, key=heights.__getitem__) == column


def test_the_teacher_is_a_line_in_place_of_local():
    axes = panel(plots._rate_accuracy(comparison(local(), BOTTLEFIT)))
    assert any("teacher = local,\n0 bytes: 85.1 %" in text for text in texts(axes))
    assert any("0.6 points less" in text for text in texts(axes))
    assert axes.get_xscale() == "log"
    assert any(list(line.get_ydata()) == [85.1, 85.1] for line in axes.lines)
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert [band.y0, band.y1] == pytest.approx([84.5, 85.1])


def test_a_codec_outside_the_frame_has_a_triangle_with_its_value():
    axes = panel(plots._rate_accuracy(comparison(BOTTLEFIT, *JPEG)))
    bottom = 77.1  # a point below what lies within 15 points of the teacher
    assert axes.get_ylim()[0] == pytest.approx(bottom)
    (edge,) = [line for line in axes.lines if line.get_gid() == "edge"]
    assert edge.get_marker() == "v"
    assert (edge.get_xdata()[0], edge.get_ydata()[0]) == pytest.approx((690, bottom))
    assert "q5: 15 %" in texts(axes)


def test_a_poor_trained_method_stretches_the_frame_up_to_a_limit():
    poor = row("kd", "KD", top1=62.0, sent=656.0)
    assert plots._floor(85.1, [poor, *JPEG]) == pytest.approx(61.0)
    assert plots._floor(85.1, [row("kd", "KD", top1=10.0, sent=656.0)]) == pytest.approx(45.1)
    assert plots._floor(10.0, JPEG) == pytest.approx(9.4 - 0.15 * 0.6)
    assert plots._floor(0.5, JPEG) == 0


def test_the_frame_ends_where_the_data_ends():
    near = [row("bottlefit", "BottleFit", top1=84.9, std=0.1, sent=656.0), *codec("webp", "WebP", (5, 85.0, 420))]
    axes = panel(plots._rate_accuracy(comparison(*near)))
    lowest, highest = 84.5, 85.1  # the paper's claim and the teacher
    low, high = axes.get_ylim()
    assert low < lowest
    assert high > highest
    assert (highest - lowest) / (high - low) > 0.7


def test_all_markers_at_one_place_are_visible():
    same = [row(method, method, "3 channels", top1=84.0, sent=84.0) for method in ("hnd", "kd", "bottlefit")]
    axes = panel(plots._rate_accuracy(comparison(*same, row("cr-bq", "CR+BQ", top1=84.0, sent=90.0))))
    sizes = [bars.lines[0].get_markersize() for bars in axes.containers]
    orders = [bars.lines[0].get_zorder() for bars in axes.containers]
    assert sizes == [16.5, 11.5, 9.5, 6.5]
    assert orders[0] < orders[1] < orders[2]


def test_the_colours_of_lines_at_one_place_alternate():
    same = [row(method, method, "3 channels", top1=84.8, sent=84.0) for method in ("kd", "ghnd", "bottlefit")]
    drawn = lines(panel(latency_plot._latency(comparison(*same, row("cr-bq", "CR+BQ", top1=84.8, sent=200.0)))))
    patterns = [drawn[f"{name}, 3 channels"]._unscaled_dash_pattern for name in ("kd", "ghnd", "bottlefit")]
    assert [pattern[1] for pattern in patterns] == [(5.0, 10.0)] * 3
    assert [pattern[0] % 15 for pattern in patterns] == [0.0, 10.0, 5.0]  # each in the gaps of the others
    assert drawn["CR+BQ"].get_linestyle() == "-"


@pytest.mark.parametrize("draw", [plots._rate_accuracy, latency_plot._latency])
def test_no_text_leaves_the_image(draw):
    plot = draw(everything() | {"dataset": "a-folder-with-a-name-that-is-longer-than-any-image-is-wide " * 2})
    plot.draw_without_rendering()
    axes = panel(plot)
    labels = [text for text in axes.texts if text.get_text()]
    for text in (*labels, plot._suptitle, axes.xaxis.label, axes.yaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.x1 <= plot.bbox.width + 1, text
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, text
        assert text.get_fontsize() >= SMALL, text


def test_a_setting_that_sends_nothing_is_at_the_left_border():
    spinn = [
        row("spinn", "SPINN", f"threshold {t}", top1=80.0 + t, sent=sent) for t, sent in ((0.5, 0.0), (0.8, 900.0))
    ]
    axes = panel(plots._rate_accuracy(comparison(BOTTLEFIT, *spinn)))
    (edge,) = [line for line in axes.lines if line.get_gid() == "edge"]
    assert edge.get_marker() == "<"
    assert edge.get_xdata()[0] == pytest.approx(axes.get_xlim()[0])
    assert "threshold 0.5: 0 bytes" in texts(axes)


def test_a_failed_method_is_not_drawn_and_without_rows_there_is_no_plot(tmp_path):
    broken = failed("webp", "WebP", "quality 5", "no WebP")
    assert "WebP" not in texts(panel(plots._rate_accuracy(comparison(BOTTLEFIT, broken))))
    assert not plots.rate_accuracy(tmp_path / "p.png", comparison(local(), broken))
    assert not latency_plot.latency(tmp_path / "p.png", comparison(broken))
    assert not list(tmp_path.iterdir())


def test_latency_is_device_and_link_and_server():
    axes = panel(latency_plot._latency(comparison(local(), BOTTLEFIT) | {"device_slower": 10.0}))
    drawn = lines(axes)
    assert np.ptp(drawn["local"].get_ydata()) == 0
    assert drawn["local"].get_ydata()[0] == pytest.approx(24.0)
    ours = drawn["BottleFit, 8 channels"]
    assert (ours.get_xdata()[0], ours.get_xdata()[-1]) == pytest.approx((0.1, 100))
    assert ours.get_ydata()[0] == pytest.approx(3.0 + 52.48 + 2.2)
    plots_title = latency_plot._latency(comparison(local(), BOTTLEFIT) | {"device_slower": 10.0}).get_suptitle()
    assert "device 10 times slower than the measuring core" in plots_title.replace("\n", " ")
    assert "slower" not in latency_plot._latency(comparison(BOTTLEFIT)).get_suptitle()


def test_latency_shows_the_smallest_setting_within_the_goal_or_the_most_accurate():
    webp = codec("webp", "WebP", (20, 74.2, 660), (50, 81.1, 980))
    axes = panel(latency_plot._latency(comparison(*JPEG, *webp, BOTTLEFIT)))
    assert texts(axes) == ["JPEG, quality 70", "WebP, quality 50 (−4.0 points)", "BottleFit"]
    assert {name: line.get_linestyle() for name, line in lines(axes).items()} == {
        "JPEG, quality 70": "-",
        "WebP, quality 50": "--",
        "BottleFit, 8 channels": "-",
    }


@pytest.mark.parametrize("ms", [(None, 2.2), (0.3, None)])
def test_latency_leaves_out_methods_without_times(tmp_path, ms):
    untimed = row("ghnd", "GHND", top1=84.0, sent=656.0, ms=ms)
    assert texts(panel(latency_plot._latency(comparison(untimed, BOTTLEFIT)))) == ["BottleFit"]
    assert not latency_plot.latency(tmp_path / "p.png", comparison(untimed))
    assert not list(tmp_path.iterdir())


def test_an_unknown_method_and_a_name_with_a_dollar_are_drawn(tmp_path):
    odd = comparison(row("new", "$new", "$1", top1=84.0, sent=700.0), row("new", "$new", "$2", top1=84.5, sent=800.0))
    assert plots.rate_accuracy(tmp_path / "r.png", odd)
    assert latency_plot.latency(tmp_path / "l.png", odd)


def test_a_missing_folder_is_one_line(tmp_path):
    for draw in (plots.rate_accuracy, latency_plot.latency):
        with pytest.raises(UserError, match="cannot write"):
            draw(tmp_path / "missing" / "p.png", comparison(BOTTLEFIT))


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([BOTTLEFIT], "BottleFit: 656 bytes an image cost 0.4 points of top-1 on imagenette160"),
        (
            [local(), BOTTLEFIT, *JPEG],
            "Within 0.6 points of resnet18 on imagenette160, BottleFit sends the fewest bytes an image: 656; JPEG "
            "sends 1,590",
        ),
        (
            [BOTTLEFIT, row("cr-bq", "CR+BQ", top1=85.2, sent=90.0), *JPEG],
            "Within 0.6 points of resnet18 on imagenette160, CR+BQ sends the fewest bytes an image: 90; BottleFit "
            "sends 656",
        ),
        (
            [row("bottlefit", "BottleFit", top1=84.0, sent=50.0), *JPEG],
            "Within 0.6 points of resnet18 on imagenette160, JPEG sends the fewest bytes an image: 1,590; 50 of "
            "BottleFit cost 1.1 points of top-1",
        ),
        (
            [row("kd", "KD", top1=80.0, sent=50.0), row("hnd", "HND", top1=81.0, sent=60.0)],
            "No method stays within 0.6 points of resnet18 on imagenette160; nearest is HND: 60 bytes an image cost "
            "4.1 points of top-1",
        ),
    ],
)
def test_the_title_says_who_sends_the_fewest_bytes_and_what_that_costs(rows, title):
    assert plots._rate_accuracy(comparison(*rows)).get_suptitle().replace("\n", " ") == title


@pytest.mark.parametrize(
    ("rows", "slower", "title"),
    [
        ([BOTTLEFIT], 1.0, "BottleFit: 55 ms an image at 0.1 Mbit/s, 2.55 ms at 100"),
        ([local(), BOTTLEFIT], 1.0, "Local is fastest on every link"),
        ([local(), BOTTLEFIT], 10.0, "Local is fastest up to 0.25 Mbit/s, BottleFit above"),
        (
            [BOTTLEFIT, row("kd", "KD", top1=80.0, sent=50.0)],
            1.0,
            "Of those within 0.6 points of the teacher, BottleFit is fastest on every link",
        ),
    ],
)
def test_the_title_says_who_is_fastest_on_which_links(rows, slower, title):
    plot = latency_plot._latency(comparison(*rows) | {"device_slower": slower})
    assert plot.get_suptitle().replace("\n", " ").startswith(f"{title} (resnet18 on imagenette160")


def test_one_method_stands_within_the_frame_between_the_teacher_and_jpeg():
    axes = panel(plots._rate_accuracy(comparison(BOTTLEFIT)))
    assert "BottleFit\n656 bytes, 84.70 %" in texts(axes)
    assert "JPEG 95\n2,968 bytes" in texts(axes)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < 656 / 1.5 < 1.5 * 2968 < right < 100 * left
    assert low < 84.5 < 85.1 < high < low + 3
    (drop,) = [line for line in axes.lines if line.get_gid() == "drop"]
    assert list(drop.get_ydata()) == [84.7, 85.1]
    assert overlaps(axes) == []
    assert "JPEG 95\n2,968 bytes" not in texts(panel(plots._rate_accuracy(comparison(BOTTLEFIT, *JPEG))))


def test_one_method_alone_has_the_names_of_its_rates():
    names = texts(panel(plots._rate_accuracy(comparison(*WIDE))))
    assert {"lossless: 300 bytes", "within 0.6 points: 110 bytes"} <= set(names)


@pytest.mark.parametrize("draw", [plots._rate_accuracy, latency_plot._latency])
@pytest.mark.parametrize("rows", [[BOTTLEFIT], [local(), BOTTLEFIT, *JPEG]])
def test_axes_have_names_with_units(draw, rows):
    axes = panel(draw(comparison(*rows)))
    assert any(unit in axes.get_xlabel() for unit in ("bytes", "Mbit/s"))
    assert any(unit in axes.get_ylabel() for unit in ("%", "ms"))


def rated(channels, *points):
    """BottleFit's rates at one width: (id, words, top-1, bytes)."""
    return [
        row("bottlefit", "BottleFit", f"{channels} channels, {words}", top1=top1, std=0.2, sent=sent, rate=rate)
        for rate, words, top1, sent in points
    ]


NARROW = rated(3, ("lossless", "lossless", 83.9, 60.0), ("within-0.6", "within 0.6 points", 83.0, 30.0))
WIDE = rated(12, ("lossless", "lossless", 85.0, 300.0), ("within-0.6", "within 0.6 points", 84.6, 110.0))


def test_rates_are_a_curve_for_each_number_of_channels_and_their_axis_has_bytes():
    axes = panel(plots._rate_accuracy(comparison(local(), *NARROW, *WIDE, *JPEG)))
    curves = [list(bars.lines[0].get_xdata()) for bars in axes.containers]
    assert curves == [[30.0, 60.0], [110.0, 300.0], [690, 1270, 1590, 2968]]
    assert {"BottleFit, 3 channels", "BottleFit, 12 channels", "JPEG"} <= set(texts(axes))
    assert axes.get_xlabel() == "sent per image, bytes (mean, logarithmic); better is up and left"
    assert overlaps(axes) == []
    only = texts(panel(plots._rate_accuracy(comparison(local(), *WIDE, *JPEG))))
    assert "BottleFit" in only
    assert not any("channels" in text for text in only)
    assert "BottleFit, within 0.6 points" in texts(panel(latency_plot._latency(comparison(local(), *WIDE))))


def test_a_mean_of_less_than_a_byte_does_not_stretch_the_axis():
    few = row("spinn", "SPINN", "threshold 0.5", top1=84.0, sent=0.05)
    axes = panel(plots._rate_accuracy(comparison(few, row("spinn", "SPINN", "no exit", top1=85.0, sent=40.0), *JPEG)))
    assert axes.get_xlim()[0] == pytest.approx(20.0)
    assert "threshold 0.5: 0.05 bytes" in texts(axes)


def ladder(*seeds, channels=12):
    """The curve of BottleFit's rates, seed by seed."""
    return {
        "method": "bottlefit",
        "channels": channels,
        "seeds": [{"seed": seed, "points": points} for seed, points in enumerate(seeds)],
    }


def test_every_rate_of_every_seed_is_a_dot_and_the_line_is_their_mean():
    first, second = [(100.0, 84.5), (150.0, 84.8), (310.0, 85.0)], [(120.0, 84.7), (290.0, 85.0)]
    axes = panel(plots._rate_accuracy(comparison(local(), *WIDE, *JPEG) | {"curves": [ladder(first, second)]}))
    assert axes.get_xlabel().endswith("small dots: every rate of every seed")
    (dots,) = [line for line in axes.lines if line.get_gid() == "rates"]
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == sorted([*first, *second])
    assert any(list(line.get_xdata()) == [120.0, 150.0, 290.0] for line in axes.lines)
    assert overlaps(axes) == []


def test_a_ladder_of_other_channels_is_not_this_curves():
    axes = panel(plots._rate_accuracy(comparison(local(), *WIDE) | {"curves": [ladder([(9.0, 50.0)], channels=3)]}))
    assert not [line for line in axes.lines if line.get_gid() == "rates"]


def test_seeds_without_bytes_in_common_leave_the_line_between_the_rows():
    curves = [ladder([(100.0, 84.0), (110.0, 84.2)], [(200.0, 84.0), (300.0, 84.5)])]
    axes = panel(plots._rate_accuracy(comparison(local(), *WIDE) | {"curves": curves}))
    assert any(list(line.get_xdata()) == [110.0, 300.0] for line in axes.lines)
