"""Replayed traces: the link that follows one, and the measurement as a command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.links import bench, proxy, replay_report, timeline
from bottlefit_jax.links.flags import parse
from bottlefit_jax.links.options import ReplayOptions
from bottlefit_jax.links.proxy import Direction, ProcessLink
from bottlefit_jax.links.replay_report import Setting
from bottlefit_jax.links.run import Answer, Run
from bottlefit_jax.links.trace import Trace
from bottlefit_jax.links.world import Outcome
from tests.bundle import example
from tests.serve import example as serve_example

TRACE = Trace("a link", [0, 1, 2], [8.0, 0.0, 0.8])  # 1 MB in the first second, nothing in the next
RUN = Run(
    "auto",
    TRACE,
    5.0,
    images=5,
    answers=[Answer(0.0, 0.02, "fine"), Answer(0.1, 0.03, "local"), Answer(0.2, 0.2, "fine"), Answer(0.3, 0.05, None)],
    sent=1000,
)
SETTING = Setting("digits version 1", "a command", "a machine", 50.0, None, 3, {"fine": 80.0, "local": 90.0})


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def test_a_link_that_follows_a_trace_carries_bytes_at_its_rates(monkeypatch):
    clock, link = Clock(), Direction()
    monkeypatch.setattr(proxy, "time", clock)
    link.shape(8.0, 10)
    assert link.due(1_000_000) == pytest.approx(101.01)
    link.follow(TRACE, 10, clock.now)  # what was under way is forgotten
    assert link.due(500_000) == pytest.approx(100.51)
    assert link.due(600_000) == pytest.approx(103.01)  # 500,000 until the outage, the rest behind it
    assert link.due(10_000) == pytest.approx(103.02), "the trace begins again"
    clock.now = 104.5
    assert link.due(10_000) == pytest.approx(105.11), "in the second outage"
    assert link.sent == 2_120_000
    link.shape(8.0, 0)
    clock.now = 200.0
    assert link.due(1_000_000) == pytest.approx(201.0)


def test_a_delay_that_no_link_has_is_refused():
    with ProcessLink() as link, pytest.raises(UserError, match="a delay of -1 ms"):
        link.follow(TRACE, -1)


def test_an_answer_counts_where_it_came_by_the_deadline():
    outcome = RUN.outcome(0.05, {"fine": 80.0, "local": 90.0})
    assert outcome.to_json() == {"in_time": 40.0, "top1": 34.0, "bytes": 200.0, "paths": {"fine": 20.0, "local": 20.0}}


def test_the_report_has_every_method_and_says_by_how_much_results_were_late(tmp_path, capsys):
    broken = Run("fine", TRACE, 5.0, error="the server is gone")
    replay_report.write(tmp_path, SETTING, [RUN, broken])
    values = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["method"], row["in_time"], row["error"]) for row in values["rows"]] == [
        ("auto", 40.0, None),
        ("fine", 0.0, "the server is gone"),
    ]
    assert values["total"]["auto"]["late_p99_ms"] == pytest.approx(np.percentile([0, 0, 150, 0], 99))
    text = (tmp_path / "bench.md").read_text()
    assert "| **auto** | 40.00 | 34.00 | 200 |" in text
    assert "the server is gone" in text
    assert "![The link's rate, and the latency of every image](a link-5ms.png)" in text
    assert (tmp_path / "a link-5ms.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "frames.csv").read_text().splitlines()))
    assert [(row["taken_s"], row["ms"], row["path"]) for row in rows[1:]] == [
        ("0.1000", "30.00", "local"),
        ("0.2000", "200.00", "fine"),
        ("0.3000", "50.00", ""),
    ]
    assert capsys.readouterr().err == ""


def test_nothing_is_drawn_of_a_run_without_answers(tmp_path):
    with pytest.raises(UserError, match="nothing to draw"):
        timeline.draw(tmp_path / "a.png", Run("auto", TRACE, 5.0), Outcome(), paths=[], deadline_ms=50)


def timeline_of(run, **changes):
    setting = {"paths": ["fine", "coarse", "local"], "deadline_ms": 50.0, **changes}
    return timeline._figure(run, run.outcome(0.05, dict.fromkeys(setting["paths"], 80.0)), **setting)


def test_the_plot_says_what_was_in_time_and_shades_what_the_link_was_down():
    answers = [Answer(taken, 0.02, "fine") for taken in (0.0, 1.5, 4.9)]
    plot = timeline_of(replace(RUN, images=4, answers=answers))
    assert plot.get_suptitle() == "75.0 % of 4 images in time on a link, which is down for 2 of 5 s (5 ms each way)"
    for axes in plot.axes:
        shaded = [patch.get_x() for patch in axes.patches if patch.get_gid() == "outage"]
        assert shaded == pytest.approx([1.0, 4.0])
    steady = replace(RUN, trace=Trace("Wi-Fi", [0, 1], [8.0, 2.0]))
    assert timeline_of(steady).get_suptitle() == "40.0 % of 5 images in time on Wi-Fi (5 ms each way)"


def test_the_plot_of_one_image_has_a_second_and_a_decade_around_it():
    plot = timeline_of(replace(RUN, images=1, answers=[Answer(0.0003, 0.02, "fine")]))
    _, below = plot.axes
    (left, right), (low, high) = below.get_xlim(), below.get_ylim()
    assert left < 0.0003 < 1 < right < 2
    assert low < 20 < 50 < high < 20 * low
    assert plot.get_suptitle().startswith("100.0 % of 1 image in time")


def test_paths_differ_in_colour_and_marker_and_nothing_leaves_the_image():
    names = [f"rate-{number}" for number in range(12)]
    answers = [Answer(0.1 * at, 0.001 * (1 + at), name) for at, name in enumerate([*names, "local"])]
    plot = timeline_of(
        replace(RUN, images=14, answers=[*answers, Answer(1.5, 0.05, None)]), paths=[*names, "local"], deadline_ms=9.0
    )
    plot.draw_without_rendering()
    above, below = plot.axes
    looks = {
        (tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in below.collections
        if dots.get_label() != "no answer"
    }
    assert len(looks) == 13
    (legend,) = plot.legends
    for one in (plot._suptitle, legend, above.yaxis.label, below.yaxis.label, below.xaxis.label, *below.texts):
        box = one.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= plot.bbox.width + 1, one
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, one
    assert not legend.get_window_extent().overlaps(below.get_window_extent())
    assert "Mbit/s" in above.get_ylabel()
    assert "ms" in below.get_ylabel()
    assert below.get_xlabel().endswith(", s")


@pytest.fixture
def command(tmp_path, models):
    """The flags of a measurement with a bundle of two rates, on a trace with an outage."""
    local = {"litert": "local.tflite", "top1": 74.8}
    files = {**example.FILES, "tail.onnx": serve_example.onnx_tail(), **models}
    values = example.with_rates(files=files, local=local, heads=None)
    heads = example.heads(example.manifest()["image"], example.manifest()["latent"], "float32")
    example.write(tmp_path / "bundle", **{**values, "heads": heads})
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "outage.csv").write_text("seconds,mbit_per_s\n0,20\n0.8,0\n1.2,20\n")
    flags = ["--bundle", tmp_path / "bundle", "--images", tmp_path, "--output", tmp_path / "out"]
    return [*map(str, [*flags, "--trace", tmp_path / "outage.csv"])]


@pytest.mark.parametrize("pace", [[], ["--fps", "20"]])
def test_every_path_is_measured_over_real_processes(command, tmp_path, pace, capsys):
    assert bench.main([*command, "--deadline-ms", "5000", *pace]) == 0
    values = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [row["method"] for row in values["rows"]] == ["auto", "lossless", "coarse", "local"]
    for row in values["rows"]:
        assert row["error"] is None
        assert row["images"] > 0
        assert row["in_time"] > 0
        assert (row["bytes"] > 0) == (row["method"] != "local") or row["method"] == "auto"
    if pace:
        assert [row["images"] for row in values["rows"]] == [
            32
        ] * 4  # 1.6 seconds: the last rate lasts as the one before
    assert (tmp_path / "out" / "outage-5ms.png").exists()
    assert "outage, 5 ms, coarse: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--deadline-ms is missing: with --trace it says what is in time"),
        (["--deadline-ms", "50", "--rates", "5"], "--rates does not go with --trace"),
        (["--deadline-ms", "50", "--server", "pi:8001"], "--server does not go with --trace"),
        (["--deadline-ms", "50", "--token-file", "t"], "--token-file does not go with --trace"),
        (["--deadline-ms", "50", "--delays", "-5"], "a delay of -5 ms"),
        (["--deadline-ms", "50", "--fps", "0"], "--fps is 0; it must be 0.01 to 1,000"),
        (["--deadline-ms", "50", "--trace", "none.csv"], "cannot read the trace none.csv"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(command, flags, message, capsys):
    assert bench.main([*command, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_flags_of_a_replay_need_a_trace(tmp_path):
    base = ["--bundle", "b", "--images", "p", "--output", str(tmp_path)]
    with pytest.raises(UserError, match="--fps goes with --trace FILE_OR_FOLDER only"):
        parse([*base, "--fps", "5"], None)
    options = parse([*base, "--trace", "t", "--deadline-ms", "50", "--delays", "40,5"], None)
    assert isinstance(options, ReplayOptions)
    assert (options.deadline_ms, options.delays, options.fps) == (50.0, (5.0, 40.0), None)
