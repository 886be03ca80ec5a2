"""Percentiles, intervals, crossings and winners of measured rows."""

import pytest

from bottlefit_jax.links.summary import Sample, crossings, median_interval, percentiles, winner
from tests.links.rows import row


def test_percentiles_are_those_of_numpy_where_there_are_enough_samples():
    samples = [Sample({"head": float(value), "total": 2.0 * value}) for value in range(1, 102)]
    found = percentiles(samples)
    assert found["head"] == {"p50": 51, "p95": 96, "p99": 100}
    assert found["total"]["p95"] == 192
    assert set(found) == {"head", "total"}
    assert set(percentiles(samples[:99])["head"]) == {"p50", "p95"}
    assert set(percentiles(samples[:19])["head"]) == {"p50"}


def test_the_interval_of_a_median_is_that_of_the_binomial_distribution():
    values = [float(value) for value in range(1, 51)]
    # of 25 values the 8th and the 18th, of 10 the 2nd and the 9th (tables of the sign test)
    assert median_interval(sorted(values, key=lambda value: value % 2)) == (15, 36)
    assert median_interval(values[:10]) == (2, 9)
    assert median_interval(values[:6]) == (1, 6)
    assert median_interval(values[:5]) is None


def test_a_disturbance_of_half_a_row_widens_its_interval():
    assert median_interval([10.0] * 26 + [90.0] * 24) == (10, 90)


def test_overlapping_intervals_give_neither_a_crossing_nor_a_winner():
    rows = [row("split", rate, p50, spread=0.3) for rate, p50 in ((5, 10.0), (20, 9.0), (100, 8.0))]
    rows += [row("jpeg", rate, p50, spread=0.3) for rate, p50 in ((5, 9.5), (20, 9.4), (100, 7.9))]
    assert crossings(rows) == []
    assert winner(rows[::3]) is None


def test_a_crossing_is_between_the_rates_at_which_the_intervals_do_not_overlap():
    split = [row("split", rate, p50, spread=0.02) for rate, p50 in ((1, 20.0), (5, 11.0), (20, 10.0), (100, 10.0))]
    jpeg = [row("jpeg", rate, p50, spread=0.02) for rate, p50 in ((1, 80.0), (5, 11.2), (20, 9.9), (100, 5.0))]
    (found,) = crossings([*split, *jpeg])
    assert (found.below, found.above, found.between) == ("split", "jpeg", (1, 100))
    assert 5 < found.rate_mbit < 20
    assert 9.9 < found.ms < 11.2


def test_lines_cross_where_they_are_drawn_to():
    found = crossings([row("split", 1, 100), row("split", 100, 1), row("local", 1, 10), row("local", 100, 10)])
    assert [(one.below, one.above) for one in found] == [("local", "split")]
    assert found[0].rate_mbit == pytest.approx(10)
    assert found[0].ms == pytest.approx(10)


def test_a_failed_row_has_no_crossing_and_is_no_winner():
    rows = [row("split", 1, 100), row("split", 100, 0, error="lost"), row("local", 1, 10), row("local", 100, 10)]
    assert crossings(rows) == []
    assert winner(rows[:2]) is rows[0]
    assert winner(rows[1:2]) is None
