"""Traces of links: what is read, what is refused, and when bytes arrive."""

import random

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.links.trace import Trace, read_trace, read_traces


def write(folder, text, name="trace.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_trace_is_read(tmp_path):
    trace = read_trace(write(tmp_path, "seconds,mbit_per_s\n10,2\n11,0\n\n13,4\n"))
    assert (trace.name, trace.seconds) == ("trace", 5.0)  # the last rate holds as long as the one before
    assert [trace.rate(second) for second in (0, 0.99, 1, 2.9, 3, 4.9, 5)] == [2, 2, 0, 0, 4, 4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with the line seconds,mbit_per_s"),
        ("time,rate\n0,1\n", "must begin with the line seconds,mbit_per_s"),
        ("seconds,mbit_per_s\n", "has no rates"),
        ("seconds,mbit_per_s\n0,1\n\n2,1\n1,1\n", "goes from 2 to 1 seconds in line 5; time must rise"),
        ("seconds,mbit_per_s\n0,1\n0,2\n", "goes from 0 to 0 seconds in line 3; time must rise"),
        ("seconds,mbit_per_s\n0,-1\n", "has '0,-1' in line 2; a rate is 0 or more"),
        ("seconds,mbit_per_s\n0,nan\n", "has '0,nan' in line 2; a rate is 0 or more"),
        ("seconds,mbit_per_s\n0,1,2\n", "has '0,1,2' in line 2, not two numbers"),
        ("seconds,mbit_per_s\n0,fast\n", "has '0,fast' in line 2, not two numbers"),
        ("seconds,mbit_per_s\n0,0\n1,0\n", "has only rates of 0: nothing ever arrives"),
    ],
)
def test_a_trace_that_no_link_has_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_trace(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_without_traces_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the trace .*none\.csv: No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="it is no table of text"):
        read_trace(tmp_path / "binary.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no trace, which is a file NAME\.csv"):
        read_traces(tmp_path / "empty")


def test_a_folder_is_read_by_name(tmp_path):
    for name in ("b.csv", "a.csv"):
        write(tmp_path, "seconds,mbit_per_s\n0,1\n", name)
    assert [trace.name for trace in read_traces(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0.0, 125_000, 0.5),  # 1 Mbit at 2 Mbit/s
        (0.5, 125_000, 1.0),
        (0.75, 125_000, 3.125),  # half of it after two seconds without a link
        (1.5, 125_000, 3.25),
        (3.0, 1_125_000, 5.5),  # 8 Mbit until the trace begins again, then 1
        (5.0, 125_000, 5.5),
        (0.0, 1_250_000, 5.0),  # all that a round carries
        (0.0, 2_500_000 + 125_000, 10.5),
        (2.0, 0, 2.0),
    ],
)
def test_bytes_arrive_when_the_rates_have_carried_them(start, size, expected):
    trace = Trace("", (0.0, 1.0, 3.0), (2.0, 0.0, 4.0))
    assert trace.seconds == 5.0
    assert trace.arrives(start, size) == pytest.approx(expected, abs=1e-9)


def test_bytes_that_are_sent_in_two_parts_arrive_as_those_sent_at_once():
    """The first part mostly ends before the rate changes, the whole after it."""
    chance = random.Random(0)
    trace = Trace("", (0.0, 1.0, 1.5, 3.0, 3.2), (2.0, 0.0, 4.0, 0.1, 3.0))
    for _ in range(500):
        start, one, other = chance.uniform(0, 20), chance.uniform(0, 3e5), chance.uniform(0, 2e6)
        middle = trace.arrives(start, one)
        assert start <= middle
        assert trace.arrives(middle, other) == pytest.approx(trace.arrives(start, one + other), abs=1e-6)


def test_outages_are_joined_and_come_again_with_the_trace():
    trace = Trace("down", [0, 1, 2, 3], [0.0, 5.0, 0.0, 0.0])
    assert trace.outages(0.5) == [(0.0, 0.5)]
    assert trace.outages(4.5) == [(0.0, 1.0), (2.0, 4.5)]
    assert trace.outages(9.0) == [(0.0, 1.0), (2.0, 5.0), (6.0, 9.0)]
    assert Trace("up", [0, 1], [1.0, 2.0]).outages(10.0) == []
