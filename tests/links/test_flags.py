"""The flags of a link measurement, its options, and its notes about them."""

from pathlib import Path

import pytest

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.links import bench as command
from bottlefit_jax.links.energy import Watts
from bottlefit_jax.links.flags import parse
from bottlefit_jax.links.options import BenchOptions
from tests.bundle import example as bundles


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
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_flags_become_options(tmp_path):
    flags = ["--bundle", "b", "--images", "p", "--output", str(tmp_path), "--rates", "5,1,5", "--delays", "40,5"]
    options = parse([*flags, "--watts-compute", "6", "--watts-send", "4", "--watts-idle", "2"], None)
    assert options == BenchOptions(
        Path("b"), Path("p"), tmp_path, rates=(1.0, 5.0), delays=(5.0, 40.0), watts=Watts(6.0, 4.0, 2.0)
    )


def test_without_flags_the_options_have_their_defaults(tmp_path):
    flags = ["--bundle", "b", "--images", "p", "--output", str(tmp_path)]
    assert parse(flags, None) == BenchOptions(Path("b"), Path("p"), tmp_path)


@pytest.mark.parametrize("name", ["bench.json", "bench.md", "latency.png"])
def test_an_earlier_report_is_not_overwritten_without_the_flag(tmp_path, name, capsys):
    (tmp_path / name).write_text("earlier")
    flags = ["--bundle", str(tmp_path / "none"), "--images", "p", "--output", str(tmp_path)]
    assert command.main(flags) == 2
    message = capsys.readouterr().err
    assert f"already holds {name} of a measurement; name another folder, or give --overwrite" in message
    assert (tmp_path / name).read_text() == "earlier"
    parse([*flags, "--overwrite"], None)
    (tmp_path / name).unlink()
    parse(flags, None)


@pytest.mark.parametrize(("slower", "server"), [(1.0, None), (8.0, None), (1.0, "pi:8001")])
def test_the_notes_describe_how_it_was_measured(slower, server, tmp_path):
    folder = tmp_path / "bundle"
    bundles.write(folder)
    manifest = read_bundle(folder).manifest
    options = BenchOptions(Path("b"), Path("p"), Path("o"), device_slower=slower, server=server)
    notes = " ".join(command._notes(options, manifest, None if server else [1.0]))
    assert ("as fast as the server" in notes) == (slower == 1 and server is None)
    assert ("counted 8 times" in notes) == (slower == 8)
    assert ("The device is this machine, the edge server is at pi:8001." in notes) == (server is not None)
    assert ("JPEG" in notes) == (server is None)
