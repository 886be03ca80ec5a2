"""The flags of a link measurement, and what its notes say of them."""

import math

import pytest

from bottlefit_jax.links import bench as command
from bottlefit_jax.links.flags import parse


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--rates", "1,x"], "--rates is '1,x'"),
        (["--rates", "0"], "must be above 0"),
        (["--delays", "-1"], "a delay of -1 ms"),
        (["--delays", "nan"], "--delays is 'nan'"),
        (["--count", "0"], "--count is 0"),
        (["--jpeg-quality", "96"], "--jpeg-quality is 96; it must be 1 to 95"),
        (["--watts-compute", "5"], "--watts-send is missing"),
        (["--watts-compute", "-5"], "--watts-compute is -5"),
        (["--shaper", "magic"], "invalid choice"),
        (["--what"], "--help lists the flags"),
        (["--server", "pi:8001", "--rates", "5"], "--rates does not go with --server"),
        (["--server", "pi:8001", "--shaper", "netem"], "--shaper does not go with --server"),
        (["--jpeg-server", "pi:8002"], "--jpeg-server goes with --server HOST:PORT only"),
        (["--token-file", "t"], "--token-file goes with --server HOST:PORT only"),
        ([], "no folder"),
    ],
)
def test_a_wrong_flag_is_one_line(flags, complaint, tmp_path, capsys):
    given = ["--bundle", str(tmp_path / "none"), "--images", str(tmp_path), "--output", str(tmp_path / "out")]
    assert command.main([*given, *flags]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_rates_are_sorted_and_single():
    flags = ["--bundle", "b", "--images", "p", "--output", "o", "--rates", "5,1,5", "--delays", "40,5"]
    args = parse(flags, None)
    assert (args.rates, args.delays) == ([1, 5], [5, 40])
    assert math.isclose(args.deadline_ms, 20_000)


@pytest.mark.parametrize("name", ["bench.json", "bench.md", "latency.png"])
def test_an_earlier_report_is_not_overwritten_without_a_word(tmp_path, name, capsys):
    (tmp_path / name).write_text("earlier")
    flags = ["--bundle", str(tmp_path / "none"), "--images", "p", "--output", str(tmp_path)]
    assert command.main(flags) == 2
    message = capsys.readouterr().err
    assert f"already holds {name} of a measurement; name another folder, or give --overwrite" in message
    assert (tmp_path / name).read_text() == "earlier"
    assert parse([*flags, "--overwrite"], None).overwrite


@pytest.mark.parametrize(("slower", "server"), [(1.0, None), (8.0, None), (1.0, "pi:8001")])
def test_the_notes_fit_how_it_was_measured(slower, server, tmp_path):
    from bottlefit_jax.bundle import read_bundle
    from tests.bundle import example as bundles

    folder = tmp_path / "bundle"
    bundles.write(folder)
    manifest = read_bundle(folder).manifest
    flags = ["--bundle", "b", "--images", "p", "--output", "o", "--device-slower", str(slower)]
    args = parse([*flags, *(["--server", server] if server else [])], None)
    notes = " ".join(command._notes(args, manifest, None if server else [1.0]))
    assert ("as fast as the server" in notes) == (slower == 1 and server is None)
    assert ("counted 8 times" in notes) == (slower == 8)
    assert ("The device is this machine, the edge server is at pi:8001." in notes) == (server is not None)
    assert ("JPEG" in notes) == (server is None)
