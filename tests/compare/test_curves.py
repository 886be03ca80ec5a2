"""What a method was measured at, seed by seed, and accuracies at the same bytes."""

import pytest

from bottlefit_jax.compare.curves import mean_at, mean_points, measured_curves, top1_at
from bottlefit_jax.compare.items import Item
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.compare.same_bytes import same_bytes, same_bytes_text
from tests.compare.test_rows import rated, result, trained


def curve(method="bottlefit", *, seeds, macs=6, channels=8, title=None):
    """A curve of a trained method; `seeds` has the points of each."""
    return {
        "method": method,
        "title": title or METHODS[method].title,
        "channels": channels,
        "trained": METHODS[method].change is not None,
        "keeps_teacher": METHODS[method].keeps_teacher,
        "macs": macs,
        "seeds": [{"seed": seed, "points": points} for seed, points in enumerate(seeds)],
    }


def test_every_rate_of_every_seed_is_a_point_and_the_raw_latent_is_none():
    items = trained("bottlefit-rate", 0, 1)
    results = {
        items[0].name: rated(("lossless", 300.0, 78.0), ("within-0.1", 200.0, 77.9), ("90-bytes", 90.0, 76.0)),
        items[1].name: rated(("lossless", 320.0, 79.0)),
    }
    (found,) = measured_curves([Item(METHODS["local"]), *items], {**results, "local": {"top1": 80.0}})
    assert (found["method"], found["channels"], found["macs"], found["keeps_teacher"]) == (
        "bottlefit-rate",
        8,
        6,
        False,
    )
    assert found["seeds"] == [
        {"seed": 0, "points": [(90.0, 76.0), (200.0, 77.9), (300.0, 78.0)]},
        {"seed": 1, "points": [(320.0, 79.0)]},
    ]


def test_qualities_and_thresholds_are_points_of_one_curve():
    jpeg = [Item(METHODS["jpeg"], quality) for quality in (5, 95)]
    sent = {item.name: {"top1": 70.0 + n, "bytes": {"mean": 900.0 - n}, "macs": 0} for n, item in enumerate(jpeg)}
    exits = [
        {"top1": 60.0, "bytes": {"mean": 0.0}},  # nothing was sent: it has no logarithm
        {"top1": 75.0, "bytes": {"mean": 500.0}},
        {"top1": 76.0, "bytes": {"mean": 500.0}},
    ]
    spinn = Item(METHODS["spinn"], None, None, 0)
    images, early = measured_curves([*jpeg, spinn], {**sent, spinn.name: result(76.0, exits=exits)})
    assert images["seeds"] == [{"seed": None, "points": [(899.0, 71.0), (900.0, 70.0)]}]
    assert (images["trained"], images["channels"]) == (False, None)
    assert early["seeds"] == [{"seed": 0, "points": [(500.0, 76.0)]}]
    assert early["keeps_teacher"]


def test_channels_are_curves_of_their_own():
    items = [*trained("ghnd", 0, channels=3), *trained("ghnd", 0, channels=6)]
    assert len(measured_curves(items, {item.name: rated(("lossless", 9.0, 1.0)) for item in items})) == 2


def test_between_rates_top1_is_linear_in_the_logarithm_of_bytes_and_outside_them_unknown():
    points = [(100.0, 70.0), (400.0, 80.0)]
    assert top1_at(points, 200.0) == pytest.approx(75.0)
    assert (top1_at(points, 100.0), top1_at(points, 400.0)) == (70.0, 80.0)
    assert top1_at(points, 99.9) is None
    assert top1_at(points, 401.0) is None
    assert top1_at([], 100.0) is None


def test_seeds_are_interpolated_before_their_mean_and_all_must_be_measured_there():
    both = curve(seeds=[[(100.0, 70.0), (400.0, 80.0)], [(150.0, 78.0), (300.0, 78.0)]])
    assert mean_at(both, 200.0) == {"mean": pytest.approx(76.5), "std": pytest.approx(1.5 * 2**0.5)}
    assert mean_at(both, 120.0) is None
    assert mean_at(curve(seeds=[[(100.0, 70.0), (400.0, 80.0)]]), 200.0) == {"mean": pytest.approx(75.0), "std": None}
    assert [sent for sent, _ in mean_points(both)] == [150.0, 300.0]
    assert mean_points(both)[0][1] == pytest.approx((78.0 + 70.0 + 10 * 0.29248) / 2, abs=1e-3)


WIDE = [(50.0, 70.0), (500.0, 80.0)]


def test_columns_are_the_round_counts_at_which_two_trained_methods_were_measured():
    table = same_bytes(
        [
            curve("jpeg", seeds=[[(61.0, 10.0), (5000.0, 90.0)]], macs=0),
            curve("bottlefit", seeds=[WIDE]),
            curve("ghnd", seeds=[[(90.0, 70.0), (250.0, 80.0)]]),
            curve("kd", seeds=[[(900.0, 70.0), (4000.0, 80.0)]]),
        ]
    )
    assert table["bytes"] == [100, 120, 160, 200]
    alone = same_bytes([curve("bottlefit", seeds=[WIDE])])
    assert alone["bytes"] == [60, 80, 100, 120, 160, 200, 300, 400]
    assert same_bytes([curve("kd", seeds=[[(7.0, 1.0), (11.0, 2.0)]])])["bytes"] == [8, 10]
    assert len(same_bytes([curve("kd", seeds=[[(1.0, 1.0), (1e6, 2.0)]])])["bytes"]) <= 12


def test_methods_are_grouped_by_what_the_device_computes():
    table = same_bytes(
        [
            curve("jpeg", seeds=[[(60.0, 90.0), (100.0, 90.0)]], macs=0),
            curve("kd", seeds=[WIDE], macs=5_600_000),
            curve("bottlefit", seeds=[WIDE], macs=5_500_000),
            curve("bottlefit-patch", seeds=[WIDE], macs=810_000),
            curve("entropic", seeds=[[(200.0, 60.0), (400.0, 70.0)]], macs=26_900_000),
            curve("cr-bq", seeds=[WIDE], macs=41_000_000),
            curve("spinn", seeds=[WIDE], macs=48_000_000),
        ]
    )
    assert [(group["heading"], [row["title"] for row in group["rows"]]) for group in table["groups"]] == [
        ("an encoder of its own, 810 k multiply-adds", ["BottleFit-patch"]),
        ("an encoder of its own, 5.5 M to 5.6 M multiply-adds", ["KD", "BottleFit"]),
        ("an encoder of its own, 26.9 M multiply-adds", ["Entropic Student"]),
        ("the teacher up to the cut, 41 M to 48 M multiply-adds", ["CR+BQ", "SPINN"]),
        ("images sent as files, the whole teacher on the server", ["JPEG"]),
    ]


def test_the_table_has_a_dash_where_a_method_was_not_measured_and_channels_where_there_are_several():
    wide = curve("bottlefit", seeds=[[(100.0, 70.0), (400.0, 80.0)]], macs=6_000_000, channels=12)
    narrow = curve("bottlefit", seeds=[[(100.0, 75.0), (150.0, 75.0)]], macs=6_000_000, channels=3)
    blocks = same_bytes_text(same_bytes([wide, narrow, curve("kd", seeds=[WIDE], macs=6_000_000)]))
    assert blocks[0] == "## Accuracy at the same bytes"
    lines = blocks[1].splitlines()
    assert lines[0] == (
        "| top-1 %, at bytes per image: | multiply-adds on the device | 100 | 120 | 160 | 200 | 300 | 400 |"
    )
    assert lines[3:] == [
        "| BottleFit, 12 channels | 6 M | 70.00 | 71.32 | 73.39 | 75.00 | 77.92 | 80.00 |",
        "| BottleFit, 3 channels | 6 M | 75.00 | 75.00 | – | – | – | – |",
        "| KD | 6 M | 73.01 | 73.80 | 75.05 | 76.02 | 77.78 | 79.03 |",
    ]
    assert "Means of the seeds" in blocks[2]


def test_without_a_curve_there_is_no_table():
    assert same_bytes_text(same_bytes([])) == []
    assert same_bytes_text(same_bytes([curve("kd", seeds=[[(657.0, 80.0)]])])) == []
