"""The command that simulates a device on a trace."""

import json

import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.links import simulate
from bottlefit_jax.links.times import measure_times
from tests.bundle import example
from tests.serve import example as serve_example

TIMES = ("--head-ms", "2", "--local-ms", "9", "--tail-ms", "1")
TRACE = "seconds,mbit_per_s\n0,1\n4,0.1\n8,0\n9,2\n"


@pytest.fixture
def bundle(tmp_path):
    files = {**example.FILES, "local.tflite": b"the whole network"}
    return example.write(
        tmp_path / "bundle", **example.with_rates(files=files, local={"litert": "local.tflite", "top1": 74.8})
    )


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "link.csv"
    path.write_text(TRACE)
    return path


def run(capsys, *words):
    code = simulate.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("fps", [(), ("--fps", "20")])
def test_one_object_has_the_policy_the_oracle_and_every_path(capsys, bundle, trace, fps):
    flags = ("--bundle", bundle, "--trace", trace, "--deadline-ms", 50, *TIMES, *fps, "--json")
    code, out, err = run(capsys, *flags)
    assert (code, err) == (0, "")
    found = json.loads(out)
    manifest = read_bundle(bundle, verify=lambda manifest: []).manifest
    assert set(found["fixed"]) == {rate.id for rate in manifest.rates}
    assert found["times_ms"] == {"head": 2.0, "local": 9.0, "tail": 1.0, "more": None}
    for outcome in (found["auto"], found["oracle"], found["local"], *found["fixed"].values()):
        assert set(outcome) == {"in_time", "top1", "bytes", "paths"}
        assert sum(outcome["paths"].values()) == pytest.approx(outcome["in_time"])
    assert found["auto"]["in_time"] == found["local"]["in_time"] == 100
    assert found["local"]["bytes"] == 0
    assert max(outcome["top1"] for outcome in found["fixed"].values()) <= found["auto"]["top1"]
    assert run(capsys, *flags)[1] == out


def test_without_the_local_network_there_is_no_row_of_it(capsys, bundle, trace):
    flags = ("--bundle", bundle, "--trace", trace, "--deadline-ms", 50, *TIMES, "--without-local")
    found = json.loads(run(capsys, *flags, "--json")[1])
    assert found["local"] is None
    assert found["times_ms"]["local"] is None
    assert "local" not in found["auto"]["paths"]
    table = run(capsys, *flags)[1]
    assert table.splitlines()[0].startswith("path")
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["auto", "oracle", *found["fixed"], "computing:"]


def test_a_folder_is_all_its_traces_together(capsys, bundle, trace):
    flags = ("--bundle", bundle, "--deadline-ms", 50, *TIMES, "--json", "--fps", 10)
    one = json.loads(run(capsys, *flags, "--trace", trace)[1])
    (trace.parent / "other.csv").write_text(TRACE)
    both = json.loads(run(capsys, *flags, "--trace", trace.parent)[1])
    assert both["fixed"] == one["fixed"]


def test_what_no_flag_says_is_measured(tmp_path, models):
    folder = serve_example.write(tmp_path / "real", files=models, local={"litert": "local.tflite", "top1": 74.8})
    times, slower = measure_times(folder), measure_times(folder, slower=1000.0)
    assert 0 < times.head < slower.head
    assert times.local is not None
    assert slower.local is not None
    assert 0 < times.local < slower.local
    assert 0 < slower.tail < slower.head  # the server is not slower


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--deadline-ms", "0"), "--deadline-ms is 0; it must be 0.1 to 3,600,000"),
        (("--deadline-ms", "nan"), "--deadline-ms is nan; it must be"),
        (("--deadline-ms", "50", "--fps", "0"), "--fps is 0; it must be 0.01 to 1,000"),
        (("--deadline-ms", "50", "--delay-ms", "-1"), "--delay-ms is -1; it must be 0 to 60,000"),
        (("--deadline-ms", "50", "--trace", "none.csv"), "cannot read the trace none.csv"),
        (("--deadline-ms", "50", "--bundle", "none"), "none"),
    ],
)
def test_a_mistake_is_one_line(capsys, bundle, trace, flags, message):
    code, out, err = run(capsys, "--bundle", bundle, "--trace", trace, *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_bundle_without_rates_is_refused(capsys, tmp_path, trace):
    bundle = example.write(tmp_path / "older")
    code, _, err = run(capsys, "--bundle", bundle, "--trace", trace, "--deadline-ms", 50)
    assert code == 2
    assert "has no rates, and so no accuracies to choose by: export it again" in err
