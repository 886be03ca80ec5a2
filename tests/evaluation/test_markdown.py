"""Numbers as people write them."""

from bottlefit_jax.evaluation.markdown import count_text, duration_text


def test_a_count_has_three_digits_and_a_unit():
    numbers = (0, 999, 1000, 22123, 999_999, 118_013_952, 4_120_000_000)
    assert [count_text(n) for n in numbers] == ["0", "999", "1 k", "22.1 k", "1 M", "118 M", "4.12 G"]


def test_a_duration_has_two_units_at_most():
    assert [duration_text(s) for s in (0.04, 59.94, 59.96, 372.4, 3599.7, 11100)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "6 min 12 s",
        "1 h 00 min",
        "3 h 05 min",
    ]
