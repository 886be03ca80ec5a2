import dataclasses
import json

import numpy as np
import pytest

from bottlefit_jax.edge.image import prepare
from bottlefit_jax.errors import UserError
from bottlefit_jax.links import measure, report
from bottlefit_jax.links.energy import Watts
from bottlefit_jax.links.jpeg_server import uncut
from bottlefit_jax.links.proxy import DirectLink
from bottlefit_jax.links.summary import METHODS, Row, Sample, crossings, median_interval, percentiles, winner

RATES = (0.25, 1, 5, 20, 100)
SETTING = report.Setting(
    "b version 1", "python -m …", "process", "a proxy", "bytes", None, 1.0, 5, 3, "a machine", ["Note."]
)


def row(method, rate, p50, *, delay=5.0, error=None, spread=0.01):
    ms = {} if error else {"total": {"p50": p50, "p95": 1.2 * p50, "p99": 1.3 * p50}}
    interval = None if error else (p50 * (1 - spread), p50 * (1 + spread))
    return Row(method, rate, delay, 0 if error else 50, ms, 100.0, 200.0, None, error, interval)


def example(delay=5.0):
    """Split costs 10 ms and 20 kbit, JPEG 20 ms and 200 kbit, local 60 ms."""
    return [
        row(method, rate, fixed + kilobits / rate + 2 * delay, delay=delay)
        for rate in RATES
        for method, fixed, kilobits in (("split", 10, 20), ("local", 60 - 2 * delay, 0), ("jpeg", 20, 200))
    ]


class Steady:
    """A method of a fixed time, which fails at one image."""

    def __init__(self, name, ms, error=None, at=0):
        self.name, self.ms, self.error, self.at, self.calls = name, ms, error, at, 0

    def once(self, image):
        self.calls += 1
        if self.error is not None and self.calls > self.at:
            raise self.error
        return Sample({"prepare": 1.0, "head": self.ms - 1, "total": self.ms}, 10)


class Wire:
    """A link that notes its shapes."""

    def __init__(self):
        self.shapes, self.bytes = [], 0

    def shape(self, rate, delay):
        self.shapes.append((rate, delay))

    def sent(self):
        self.bytes += 100
        return self.bytes


class Fragile:
    """A server that is lost until it is started."""

    name = "edge server"

    def __init__(self, why=None, starts=True):
        self.why, self.starts, self.started = why, starts, 0

    def lost(self):
        return self.why

    def start(self):
        self.started += 1
        if not self.starts:
            raise UserError("the edge server did not start: no memory")
        self.why = None


def run(methods, *, servers=(), rates=(1, 5), delays=(5,), count=4, **options):
    wire, lines = Wire(), []
    rows, stopped = measure.measure_all(
        {method.name: method for method in methods},
        servers,
        wire,
        [np.zeros((4, 4, 3), np.uint8)],
        rates=rates,
        delays=delays,
        count=count,
        progress=lines.append,
        **options,
    )
    return rows, stopped, wire, lines


def test_percentiles_are_those_of_numpy():
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


def test_medians_that_are_within_the_noise_cross_nowhere_and_nobody_wins():
    rows = [row("split", rate, p50, spread=0.3) for rate, p50 in ((5, 10.0), (20, 9.0), (100, 8.0))]
    rows += [row("jpeg", rate, p50, spread=0.3) for rate, p50 in ((5, 9.5), (20, 9.4), (100, 7.9))]
    assert crossings(rows) == []
    assert winner(rows[::3]) is None


def test_a_crossing_is_between_the_rates_at_which_the_intervals_part():
    split = [row("split", rate, p50, spread=0.02) for rate, p50 in ((1, 20.0), (5, 11.0), (20, 10.0), (100, 10.0))]
    jpeg = [row("jpeg", rate, p50, spread=0.02) for rate, p50 in ((1, 80.0), (5, 11.2), (20, 9.9), (100, 5.0))]
    (found,) = crossings([*split, *jpeg])
    assert (found.below, found.above, found.between) == ("split", "jpeg", (1, 100))
    assert 5 < found.rate_mbit < 20
    assert 9.9 < found.ms < 11.2


def test_the_report_says_what_is_not_distinguished_and_what_was_disturbed(tmp_path):
    rows = [row("split", 1, 20.0), row("jpeg", 1, 80.0), row("split", 5, 10.0), row("jpeg", 5, 10.1)]
    rows[3].ms["total"]["p95"] = 121.2
    report.write(tmp_path, SETTING, rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "Split is faster than JPEG at 1 Mbit/s." in text
    assert "**Split and JPEG are not distinguished at 5 Mbit/s**" in text
    assert "**Disturbed**: 1 of 4 rows have a p95 above 3 times their p50, JPEG at 5 Mbit/s 12 times." in text
    assert "From " not in text


def test_few_images_have_neither_far_percentiles_nor_a_comparison(tmp_path):
    rows, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0)], rates=(1,))
    report.write(tmp_path, dataclasses.replace(SETTING, count=4), rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "Times are p50 in ms; p95 takes 20 images a row; p99 takes 100 images a row." in text
    assert "| 1 | split | 3.00 | – |" in text
    assert "Split and JPEG are not compared: an interval takes 6 images a row" in text
    assert "faster than" not in text.split("## ")[1]


def test_a_link_that_nobody_shapes_is_one_table_without_rates(tmp_path):
    rows, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0)], rates=(None,), delays=(None,), count=30)
    assert [(one.rate_mbit, one.delay_ms) for one in rows] == [(None, None)] * 2
    setting = dataclasses.replace(SETTING, link="direct", link_how="from this machine to pi:8001 as it is")
    report.write(tmp_path, setting, rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "## The link as it is" in text
    assert "| – | **split** | **3.00 / 3.00** | 3.00 to 3.00 |" in text
    assert "Split is faster than JPEG on this link." in text
    assert "added in each direction" not in text


def test_where_nobody_counts_bytes_the_payload_is_given_and_no_energy_is_modelled(tmp_path):
    images = [np.zeros((4, 4, 3), np.uint8)]
    rows, _ = measure.measure_all(
        {"jpeg": Steady("jpeg", 9.0)}, [], DirectLink(), images, rates=[None], delays=[None], count=6
    )
    assert (rows[0].bytes_sent, rows[0].payload, rows[0].energy_mj) == (None, 10, None)
    report.write(tmp_path, SETTING, rows, figure=None)
    assert "| 10 |" in (tmp_path / "bench.md").read_text()


def test_lines_cross_where_they_are_drawn_to():
    found = crossings([row("split", 1, 100), row("split", 100, 1), row("local", 1, 10), row("local", 100, 10)])
    assert [(one.below, one.above) for one in found] == [("local", "split")]
    assert found[0].rate_mbit == pytest.approx(10)
    assert found[0].ms == pytest.approx(10)


def test_a_failed_cell_crosses_and_wins_nothing():
    rows = [row("split", 1, 100), row("split", 100, 0, error="lost"), row("local", 1, 10), row("local", 100, 10)]
    assert crossings(rows) == []
    assert winner(rows[:2]) is rows[0]
    assert winner(rows[1:2]) is None


def test_every_crossing_and_every_winner_is_in_the_report(tmp_path):
    rows = [*example(5.0), *example(20.0)]
    report.write(tmp_path, SETTING, rows, figure="latency.png")
    text, found = (tmp_path / "bench.md").read_text(), json.loads((tmp_path / "bench.json").read_text())
    assert text.count("| **") == 2 * 2 * len(RATES)  # method and total, at each delay
    assert "## 5 ms each way" in text
    assert "## 20 ms each way" in text
    assert "![latency against link rate](latency.png)" in text
    assert "Split is faster than JPEG at every rate measured." in text
    for one in found["crossings"]:
        assert f"From {one['rate_mbit']:.2g} Mbit/s on" in text
    assert {(one["below"], one["above"]) for one in found["crossings"]} == {("local", "split"), ("local", "jpeg")}
    assert len(found["rows"]) == len(rows)


def test_the_energy_column_is_there_only_where_energy_is_known(tmp_path):
    report.write(tmp_path, SETTING, example(), figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "energy, mJ" not in text
    assert "--watts-compute" in text
    assert "latency.png" not in text


def test_rows_come_in_order_and_local_is_measured_once():
    local = Steady("local", 7.0)
    rows, stopped, wire, lines = run([Steady("split", 3.0), local, Steady("jpeg", 9.0)], delays=(5, 40))
    assert [(one.delay_ms, one.rate_mbit, one.method) for one in rows] == [
        (delay, rate, method) for delay in (5, 40) for rate in (1, 5) for method in METHODS
    ]
    assert not stopped
    assert local.calls == measure.WARM_UP + 4
    assert all(one.p(50) == {"split": 3, "local": 7, "jpeg": 9}[one.method] for one in rows)
    assert wire.shapes[0] == (1, 5)
    assert lines[0] == "5 ms, 1 Mbit/s, split: 3.0 ms"


def test_energy_is_the_model_of_the_stated_watts():
    rows, *_ = run([Steady("local", 7.0)], rates=(1,), watts=Watts(2, 5, 1))
    assert rows[0].energy_mj == pytest.approx(2 * 7)


def test_a_slower_device_computes_longer_and_all_else_is_as_measured():
    sample = Sample({"prepare": 1.0, "head": 2.0, "quantizer": 0.5, "network": 10.0, "tail": 30.0, "total": 44.0}, 7)
    found = sample.on_a_slower_device(4)
    wanted = {"prepare": 4.0, "head": 8.0, "quantizer": 2.0, "network": 10.0, "tail": 30.0, "total": 44 + 3 * 3.5}
    assert found == Sample(wanted, 7)
    rows, *_ = run([Steady("local", 7.0)], rates=(1,), slower=4)
    assert rows[0].p(50) == 28


def test_a_report_of_a_slower_device_says_that_it_is_a_model(tmp_path):
    report.write(tmp_path, dataclasses.replace(SETTING, slower=8.0), example(), figure=None)
    assert "A model of a device that computes 8 times as long" in (tmp_path / "bench.md").read_text()
    report.write(tmp_path, SETTING, example(), figure=None)
    assert "A model of a device" not in (tmp_path / "bench.md").read_text()


def test_what_sends_nothing_is_not_charged_for_idle_connections():
    class Silent(Steady):
        def once(self, image):
            return Sample(super().once(image).ms)

    rows, *_ = run([Silent("local", 7.0), Steady("jpeg", 9.0)], rates=(1,))
    assert [one.bytes_sent for one in rows] == [0, 25]


def test_a_failure_is_a_row_and_the_others_go_on():
    rows, stopped, *_ = run([Steady("split", 3.0, UserError("no answer"), at=measure.WARM_UP + 1), Steady("jpeg", 9.0)])
    assert rows[0].error == "no answer, after 1 of 4 images"
    assert rows[0].images == 1
    assert (rows[0].ms["total"]["p50"], rows[0].p(50)) == (3, None)
    assert rows[2].error == "no answer, after 0 of 4 images"
    assert rows[1].p(50) == 9
    assert not stopped


def test_an_interruption_keeps_what_was_measured():
    rows, stopped, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0, KeyboardInterrupt(), at=measure.WARM_UP + 2)])
    assert stopped
    assert [one.error for one in rows] == [None, "interrupted, after 2 of 4 images", "interrupted", "interrupted"]


def test_an_interruption_between_two_rows_costs_none():
    def progress(line):
        raise KeyboardInterrupt

    images = [np.zeros((4, 4, 3), np.uint8)]
    methods = {"split": Steady("split", 3.0), "local": "export it with --local"}
    rows, stopped = measure.measure_all(
        methods, [], Wire(), images, rates=[1, 5], delays=[5], count=4, progress=progress
    )
    assert stopped
    assert [one.error for one in rows] == [None, "export it with --local", "interrupted", "export it with --local"]


def test_a_lost_server_is_started_again():
    server = Fragile("it ended with signal 9")
    rows, _, _, lines = run([Steady("split", 3.0)], servers=[server])
    assert (server.started, rows[0].error) == (1, None)
    assert lines[0] == "the edge server is started again: it ended with signal 9"


def test_a_server_that_stays_lost_is_the_reason_in_every_row():
    rows, stopped, *_ = run([Steady("split", 3.0)], servers=[Fragile("gone", starts=False)])
    assert [one.error for one in rows] == ["the edge server did not start: no memory"] * 2
    assert not stopped


def test_a_method_that_cannot_be_had_says_so():
    wire = Wire()
    rows, _ = measure.measure_all({"local": "export it with --local"}, [], wire, [], rates=[1], delays=[5], count=1)
    assert (rows[0].error, wire.shapes) == ("export it with --local", [])


def test_a_failed_row_keeps_the_table(tmp_path):
    report.write(tmp_path, SETTING, [row("split", 1, 0, error="a | b"), row("jpeg", 1, 5)], figure=None)
    lines = [line for line in (tmp_path / "bench.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| a / b |" in lines[2]


def test_prepare_cuts_the_jpeg_out_of_its_margin_to_the_bit():
    from bottlefit_jax.bundle.manifest import Image as Wanted

    for height, width, resize in ((224, 224, 256), (32, 32, 32), (5, 8, 11)):
        wanted = Wanted(height, width, "RGB", "uint8", resize)
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        assert np.array_equal(prepare(uncut(image, wanted), wanted), image)
        with pytest.raises(UserError, match="this network takes"):
            uncut(image[1:], wanted)
