"""What is measured, in which order, and the messages for invalid flags."""

import pytest

from bottlefit_jax.compare.items import FLAGS, Options, to_measure
from bottlefit_jax.compare.methods import METHODS, QUALITIES
from bottlefit_jax.errors import UserError

DEFAULTS = {name: default for name, (default, _, _) in FLAGS.items()}


def test_by_default_every_method_is_compared_with_three_seeds():
    assert Options.parse(DEFAULTS) == Options() == Options(tuple(METHODS), (0, 1, 2), (), 1.0)


def test_the_teacher_is_always_measured_and_methods_keep_the_order_of_the_table():
    options = Options.parse({**DEFAULTS, "methods": "kd, jpeg", "seeds": "7", "channels": "6,3,6"})
    assert options == Options(("kd", "jpeg"), (7,), (6, 3), 1.0)
    names = [item.name for item in to_measure(options, (6, 3))]
    assert names == ["local", *(f"jpeg-q{quality}" for quality in QUALITIES), "kd-6ch-seed7", "kd-3ch-seed7"]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("methods", "kd,magic", "--methods has 'magic'; the methods are local, jpeg"),
        ("seeds", "0,-1", "--seeds is '0,-1'; it must be whole numbers from 0 up"),
        ("seeds", "", "--seeds is empty"),
        ("channels", "0", "--channels is '0'; it must be whole numbers from 1 up"),
        ("device-slower", "fast", "--device-slower is 'fast'; it must be a number above 0"),
        ("device-slower", "0", "--device-slower is 0.0; it must be a number above 0"),
        ("device-slower", "nan", "--device-slower is nan; it must be a number above 0"),
    ],
)
def test_an_invalid_flag_is_one_line(flag, value, message):
    with pytest.raises(UserError) as caught:
        Options.parse({**DEFAULTS, flag: value})
    assert message in str(caught.value)


def test_untrained_methods_come_first_and_then_seed_by_seed():
    names = [
        item.name for item in to_measure(Options(("local", "jpeg", "bottlefit", "spinn"), (0, 4), (), 1.0), (3, 6))
    ]
    assert names == [
        "local",
        *(f"jpeg-q{quality}" for quality in QUALITIES),
        *("bottlefit-3ch-seed0", "bottlefit-6ch-seed0", "spinn-seed0"),
        *("bottlefit-3ch-seed4", "bottlefit-6ch-seed4", "spinn-seed4"),
    ]
