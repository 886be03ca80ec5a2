"""What a rate brings an image, after what is expected of head, server and link."""

import math

import pytest

from bottlefit_jax.edge.estimate import LogNormal, Moments
from bottlefit_jax.edge.link_model import Transfers
from bottlefit_jax.edge.outlook import Outlook
from bottlefit_jax.edge.path import HEAD, Path

RATE = Path("rate", 75.0, HEAD, 700.0, 700.0)
SLOWNESS, HEAD_SECONDS, SERVER, DELAY = 1e-5, 0.008, 0.004, 0.02


def outlook(*, waiting=0.0, variance=1e-6):
    head, server = (LogNormal(math.log(seconds), variance) for seconds in (HEAD_SECONDS, SERVER))
    link = Transfers(LogNormal(math.log(SLOWNESS), variance), SLOWNESS, 300.0)
    return Outlook([RATE], DELAY, link, head, Moments.of(head).plus(server), waiting, waiting, 0.1)


@pytest.mark.parametrize("waiting", [0.0, 0.05])
def test_a_rate_takes_the_sum_of_its_parts(waiting):
    option = outlook(waiting=waiting).option(RATE, 1.0, 0.0)
    assert option.path is RATE
    assert option.expected == pytest.approx(HEAD_SECONDS + SERVER + DELAY + 1000 * SLOWNESS + waiting, rel=1e-3)
    assert option.probability == pytest.approx(1.0)


def test_the_more_time_is_left_the_likelier_is_an_answer():
    unsure = outlook(variance=0.3)
    expected = unsure.option(RATE, 1.0, 0.0).expected
    shares = [unsure.option(RATE, left, 0.0).probability for left in (DELAY, 0.03, expected, 0.06, 0.5)]
    assert shares == sorted(shares)
    assert (shares[0], shares[2]) == (0.0, pytest.approx(0.5))
    assert shares[-1] > 0.99


def test_the_value_is_between_the_fallbacks_and_the_rates():
    options = [outlook(variance=0.3).option(RATE, 0.045, fallback) for fallback in (0.0, 70.0, 80.0)]
    share = options[0].probability
    assert 0.4 < share < 0.9
    assert [each.value for each in options] == pytest.approx([75 * share, 70 + 5 * share, 80 - 5 * share])
