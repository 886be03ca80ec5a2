"""What can be held of the benchmark of fleets in no time: the slow tail, and the comparison of two outcomes."""

import pytest

from benchmarks.fleet import BUSY, IN_TIME, MEAN, print_comparison
from benchmarks.slow_tail import read_batches, slowed
from bottlefit_jax.links.fleet import FleetOutcome
from bottlefit_jax.links.world import Outcome


def outcome(*, in_time=90, seconds=0.1, busy=50.0, paths=None):
    paths = {"fine": in_time} if paths is None else paths
    images = Outcome(images=100, top1=80.0 * in_time, sent=5e4, paths=paths, times=[seconds] * in_time)
    return FleetOutcome(servers=1, seconds=60.0, images=images, refused=1, busy=busy, batch=1.5)


def test_a_slow_tail_takes_its_time_and_writes_it_down(tmp_path):
    with (tmp_path / "batches").open("w") as log:
        tail = slowed(lambda latent: latent, 0.002, 0.001, log)
        assert tail("four") == "four"
        assert tail("1") == "1"
    four, one = read_batches(tmp_path / "batches")
    assert (four.images, one.images) == (4, 1)
    assert four.seconds >= 0.005
    assert one.seconds >= 0.002
    assert one.began >= four.began + four.seconds


@pytest.mark.parametrize(
    ("simulated", "named"),
    [
        (outcome(), None),
        (outcome(in_time=82), None),
        (outcome(in_time=80), IN_TIME),
        (outcome(seconds=0.112), MEAN),
        (outcome(busy=44.0), BUSY),
        (outcome(paths={"coarse": 90}), None),  # which rates are chosen is shown, and not asked for
    ],
)
def test_what_differs_by_more_than_a_tenth_is_named(simulated, named, capsys):
    assert print_comparison(outcome(), simulated) is (named is None)
    rows = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert [row.split("|")[1].strip() for row in rows] == ([] if named is None else [named])
