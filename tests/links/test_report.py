"""bench.md and bench.json."""

import dataclasses
import json

from bottlefit_jax.links import measure, report
from bottlefit_jax.links.link import DirectLink
from tests.links.fakes import IMAGES, Steady, run
from tests.links.rows import RATES, SETTING, example, row


def test_the_report_says_what_is_not_distinguished_and_what_was_disturbed(tmp_path):
    rows = [row("split", 1, 20.0), row("jpeg", 1, 80.0), row("split", 5, 10.0), row("jpeg", 5, 10.1)]
    rows[3].ms["total"]["p95"] = 121.2
    report.write(tmp_path, SETTING, rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "Split is faster than JPEG at 1 Mbit/s." in text
    assert "**Split and JPEG are not distinguished at 5 Mbit/s**" in text
    assert "**Disturbed**: 1 of 4 rows have a p95 above 3 times their p50, JPEG at 5 Mbit/s 12 times." in text
    assert "From " not in text


def test_few_images_give_neither_high_percentiles_nor_a_comparison(tmp_path):
    rows, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0)], rates=(1,))
    report.write(tmp_path, dataclasses.replace(SETTING, count=4), rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "Times are p50 in ms; p95 needs 20 images a row; p99 needs 100 images a row." in text
    assert "| 1 | split | 3.00 | – |" in text
    assert "Split and JPEG are not compared: an interval needs 6 images a row" in text
    assert "faster than" not in text.split("## ")[1]


def test_an_unshaped_link_is_one_table_without_rates(tmp_path):
    rows, *_ = run([Steady("split", 3.0), Steady("jpeg", 9.0)], rates=(None,), delays=(None,), count=30)
    assert [(one.rate_mbit, one.delay_ms) for one in rows] == [(None, None)] * 2
    setting = dataclasses.replace(SETTING, link="direct", link_how="from this machine to pi:8001 as it is")
    report.write(tmp_path, setting, rows, figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "## The link as it is" in text
    assert "| – | **split** | **3.00 / 3.00** | 3.00 to 3.00 |" in text
    assert "Split is faster than JPEG on this link." in text
    assert "added in each direction" not in text


def test_without_a_count_of_bytes_the_report_shows_the_payload_and_no_modelled_energy(tmp_path):
    rows, _ = measure.measure_all(
        {"jpeg": Steady("jpeg", 9.0)}, [], DirectLink(), IMAGES, rates=[None], delays=[None], count=6
    )
    assert (rows[0].bytes_sent, rows[0].payload, rows[0].energy_mj) == (None, 10, None)
    report.write(tmp_path, SETTING, rows, figure=None)
    assert "| 10 |" in (tmp_path / "bench.md").read_text()


def test_every_crossing_and_every_winner_is_in_the_report(tmp_path):
    rows = [*example(5.0), *example(20.0)]
    report.write(tmp_path, SETTING, rows, figure="latency.png")
    text, values = (tmp_path / "bench.md").read_text(), json.loads((tmp_path / "bench.json").read_text())
    assert text.count("| **") == 2 * 2 * len(RATES)  # method and total, at each delay
    assert "## 5 ms each way" in text
    assert "## 20 ms each way" in text
    assert "![latency against link rate](latency.png)" in text
    assert "Split is faster than JPEG at every rate measured." in text
    for one in values["crossings"]:
        assert f"From {one['rate_mbit']:.2g} Mbit/s on" in text
    assert {(one["below"], one["above"]) for one in values["crossings"]} == {("local", "split"), ("local", "jpeg")}
    assert len(values["rows"]) == len(rows)


def test_the_energy_column_is_there_only_where_energy_is_known(tmp_path):
    report.write(tmp_path, SETTING, example(), figure=None)
    text = (tmp_path / "bench.md").read_text()
    assert "energy, mJ" not in text
    assert "--watts-compute" in text
    assert "latency.png" not in text


def test_a_report_of_a_slower_device_says_that_it_is_a_model(tmp_path):
    report.write(tmp_path, dataclasses.replace(SETTING, slower=8.0), example(), figure=None)
    assert "A model of a device that computes 8 times as long" in (tmp_path / "bench.md").read_text()
    report.write(tmp_path, SETTING, example(), figure=None)
    assert "A model of a device" not in (tmp_path / "bench.md").read_text()


def test_a_failed_row_keeps_the_table(tmp_path):
    report.write(tmp_path, SETTING, [row("split", 1, 0, error="a | b"), row("jpeg", 1, 5)], figure=None)
    lines = [line for line in (tmp_path / "bench.md").read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| a / b |" in lines[2]
