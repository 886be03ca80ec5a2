"""Rows from results: seeds as mean and spread, thresholds as settings, failures as reasons."""

import pytest

from bottlefit_jax.compare.items import Item
from bottlefit_jax.compare.methods import METHODS
from bottlefit_jax.compare.rows import table

LOCAL = {"top1": 80.0, "top5": 99.0, "bytes": {"mean": 0.0, "p95": 0.0}, "params": 7, "macs": 8}


def result(top1, **more):
    sent = {"mean": 657.0, "p95": 657.0}
    return {"top1": top1, "top5": 98.0, "bytes": sent, "params": 5, "macs": 6, "latent": [9, 9, 8], **more}


def trained(name, *seeds, channels=8):
    return [Item(METHODS[name], None, channels, seed) for seed in seeds]


def rows(items, results, failures=None, times=None):
    local = Item(METHODS["local"])
    return table([local, *items], {"local": LOCAL, **results}, failures or {}, times or {})


def test_seeds_are_one_row_with_mean_and_sample_standard_deviation():
    items = trained("kd", 0, 1, 2)
    times = {item.name: {"device": 0.5, "server": 1.5} for item in items}
    results = {item.name: result(top1, rates=[]) for item, top1 in zip(items, (78.0, 79.0, 80.0), strict=True)}
    _, row = rows(items, results, times=times)
    assert row["top1"] == {"mean": pytest.approx(79.0), "std": pytest.approx(1.0)}
    assert row["drop_points"] == pytest.approx(1.0)
    assert (row["title"], row["setting"], row["trained"]) == ("KD", "8 channels", True)
    assert row["bytes"] == {"mean": 657.0, "p95": 657.0}
    assert row["ms"] == {"device": 0.5, "server": 1.5}
    assert [each["seed"] for each in row["seeds"]] == [0, 1, 2]


def test_one_seed_has_no_spread_and_an_unmeasured_time_is_none():
    local, row = rows(trained("kd", 0), {"kd-8ch-seed0": result(78.0)})
    assert row["top1"]["std"] is None
    assert row["ms"] == {"device": None, "server": None}
    assert (local["trained"], local["drop_points"], local["setting"]) == (False, 0.0, "")


def test_a_seed_that_failed_is_a_row_beside_those_that_did_not():
    items = trained("kd", 0, 1)
    _, row, failed = rows(items, {"kd-8ch-seed0": result(78.0)}, {"kd-8ch-seed1": "the loss is not finite"})
    assert [each["seed"] for each in row["seeds"]] == [0]
    assert (failed["setting"], failed["error"], failed["top1"]) == (
        "8 channels, seed 1",
        "the loss is not finite",
        None,
    )


def test_an_item_without_a_result_yet_has_no_row():
    assert len(rows(trained("kd", 0), {})) == 1


def test_channels_are_rows_of_their_own():
    items = [*trained("ghnd", 0, channels=3), *trained("ghnd", 0, channels=6)]
    found = rows(items, {item.name: result(70.0 + number) for number, item in enumerate(items)})
    assert [row["top1"]["mean"] for row in found[1:]] == [70.0, 71.0]


def test_an_early_exit_has_a_row_for_each_threshold_and_server_time_only_for_what_is_sent():
    def exits(share):
        rest = {"top5": 98.0, "bytes": {"mean": 1000.0 * share, "p95": 2000.0}}
        return [
            {"threshold": 0.5, "top1": 77.0, "sent": share, **rest},
            {"threshold": 1.01, "top1": 81.0, "sent": 1.0, **rest},
        ]

    items = [Item(METHODS["spinn"], None, None, seed) for seed in (0, 1)]
    times = {item.name: {"device": 3.0, "server": 2.0} for item in items}
    results = {"spinn-seed0": result(81.0, exits=exits(0.2)), "spinn-seed1": result(81.0, exits=exits(0.4))}
    _, half, never = rows(items, results, times=times)
    assert (half["setting"], never["setting"]) == ("threshold 0.5, 30 % sent", "no exit")
    assert half["ms"] == {"device": 3.0, "server": pytest.approx(0.6)}
    assert half["bytes"]["mean"] == pytest.approx(300.0)
    assert never["ms"]["server"] == 2.0
    assert never["drop_points"] == pytest.approx(-1.0)


def rated(*points):
    """A training whose rates are (id, bytes, top-1)."""
    rates = [
        {"id": name, "steps": [1], "bytes_mean": sent, "bytes_p95": sent + 9.0, "top1": top1, "top5": 98.0}
        for name, sent, top1 in (("raw", 441.0, points[0][2]), *points)
    ]
    return result(points[0][2], rates=rates)


def test_a_row_takes_from_each_seed_the_cheapest_rate_that_meets_a_target():
    items = trained("kd", 0, 1)
    results = {
        items[0].name: rated(("lossless", 300.0, 78.0), ("within-0.1", 200.0, 77.9), ("90-bytes", 90.0, 76.0)),
        items[1].name: rated(("lossless", 320.0, 82.0), ("within-0.3", 150.0, 79.8), ("within-3", 80.0, 77.5)),
    }
    found = rows(items, results)[1:]
    assert [(row["rate"], row["setting"], row["bytes"]["mean"], row["top1"]["mean"]) for row in found] == [
        ("lossless", "8 channels, lossless", 310.0, 80.0),  # no rate of the second seed is within 0.1 of the teacher
        ("within-0.1", "8 channels, within 0.1 points", 260.0, pytest.approx(79.95)),
        ("within-0.3", "8 channels, within 0.3 points", 175.0, pytest.approx(78.85)),
        ("within-3", "8 channels, within 3 points", 85.0, 76.75),
    ]
    assert [each["bytes"]["mean"] for each in found[2]["seeds"]] == [200.0, 150.0]
    assert found[3]["bytes"]["p95"] == 94.0


@pytest.mark.parametrize(("more", "setting"), [({"rates": []}, "8 channels"), ({}, "8 channels, not coded")])
def test_a_training_without_rates_is_one_row(more, setting):
    """One that sends floats, and one that an earlier version measured."""
    _, row = rows(trained("kd", 0), {"kd-8ch-seed0": result(78.0, **more)})
    assert (row["rate"], row["setting"], row["bytes"]["mean"]) == (None, setting, 657.0)
