import copy
import dataclasses
import json

import numpy as np
import pytest

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import make_rates, parse_rates, rates_text
from bottlefit_jax.errors import UserError
from tests.codec.latents import fitted_rates, smooth_latents

SHAPE = (5, 5, 3)


@pytest.fixture(scope="module")
def rates():
    return fitted_rates(SHAPE)


def test_rates_that_were_written_are_read_as_they_were(rates):
    read = parse_rates(rates_text(rates), "rates.json")
    assert rates_text(read) == rates_text(rates)
    assert (read.head, read.shape, read.key) == (rates.head, rates.shape, rates.key)
    for latent in smooth_latents(4, SHAPE, seed=5):
        for ours, theirs in zip(rates.rates, read.rates, strict=True):
            assert wire.encode(latent, ours) == wire.encode(latent, theirs)


def test_the_key_depends_on_head_shape_and_tables(rates):
    others = [
        make_rates(rates.rates, head="cd" * 32, shape=SHAPE),
        make_rates(rates.rates, head=rates.head, shape=(5, 4, 3)),
        make_rates(rates.rates[:2], head=rates.head, shape=SHAPE),
        make_rates([dataclasses.replace(rates.rates[0], lanes=4), *rates.rates[1:]], head=rates.head, shape=SHAPE),
    ]
    assert len({rates.key, *(other.key for other in others)}) == 5


def test_a_rate_is_found_by_its_id(rates):
    assert rates.get("4") is rates.rates[1]
    with pytest.raises(UserError, match="no rate '5'; this bundle has 1, 4, 16"):
        rates.get("5")


def test_too_many_rates_and_ids_that_repeat_are_refused(rates):
    with pytest.raises(UserError, match="must be 1 to 16"):
        make_rates([], head="", shape=SHAPE)
    with pytest.raises(UserError, match="different ids"):
        make_rates([rates.rates[0]] * 2, head="", shape=SHAPE)
    with pytest.raises(UserError, match="1 to 16"):
        make_rates([dataclasses.replace(rates.rates[0], id=str(n)) for n in range(17)], head="", shape=SHAPE)


def without_a_code(values):
    values["rates"][0]["groups"][0]["codes"].pop()


def change(path, value):
    def make(values):
        *parents, last = path
        for key in parents:
            values = values[key]
        values[last] = value

    return make


GROUP = ("rates", 0, "groups", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(("format",), 9), "its format is 9; this package reads 1 and 2"),
        (change(("shape",), [5, 5]), "shape is"),
        (change(("shape",), [5, 5, 0]), "shape is"),
        (change(("zero_point",), 256), "zero_point is 256; it must be 0 to 255"),
        (change(("rates",), []), "must be 1 to 16"),
        (change(("rates", 0, "id"), 3), "must be a text"),
        (change(("rates", 0, "steps"), [1, 1]), "it must have 3 of 1 to 255"),
        (change(("rates", 0, "steps"), [1, 1, 0]), "it must have 3 of 1 to 255"),
        (change(("rates", 0, "steps"), [1, 1, 200]), "channel 2 has"),
        (change(("rates", 0, "lanes"), 3), "must be even"),
        (change(("rates", 0, "groups"), []), "each of 3 must be in one"),
        (change((*GROUP, "channels"), [7]), "they must be 0 to 2"),
        (change((*GROUP, "channels"), [1]), "each of 3 must be in one"),
        (change((*GROUP, "count"), [0]), "channel 0 has 256"),
        (change((*GROUP, "count"), [1 << 60]), "channel 0 has 256"),
        (change((*GROUP, "contexts", 0, "thresholds"), [[5, 5]]), "must ascend"),
        (change((*GROUP, "contexts", 1, "thresholds"), [[5, 4000]]), "must ascend"),
        (change((*GROUP, "contexts", 0, "thresholds"), []), "for another number of channels"),
        (change((*GROUP, "contexts", 0, "numbers"), [[0] * 40]), "thresholds need"),
        (change((*GROUP, "contexts", 0), {"thresholds": [[5]], "numbers": [[0, 64]]}), "of 0 to 63"),
        (change((*GROUP, "contexts"), []), "not 2 contexts"),
        (change((*GROUP, "shared"), 1), "must be true or false"),
        (without_a_code, "its contexts need"),
        (change((*GROUP, "codes", 0), "z" * 40), "digits and letters"),
        (change((*GROUP, "codes", 0), "0z" * 20), "has 500 symbols"),
        (change((*GROUP, "codes", 0), "x!"), "digits and letters"),
        (change((*GROUP, "codes", 0), 7), "digits and letters"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_one_line(rates, damage, message):
    values = copy.deepcopy(json.loads(rates_text(rates)))
    damage(values)
    with pytest.raises(UserError, match=message) as raised:
        parse_rates(json.dumps(values), "rates.json")
    assert str(raised.value).startswith("rates.json is not a valid file of rates: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("code", "message"), [("112", "overlaps"), ("122", None), ("222", "does not sum to 1"), ("110", "has no escape")]
)
def test_a_code_must_be_complete(code, message):
    nothing = {"thresholds": [[]], "numbers": [[0]]}
    outline = {"channels": [0], "low": [0], "count": [2], "contexts": [nothing, nothing], "shared": False}
    group = {**outline, "codes": [code]}
    values = {
        "format": 1,
        "head": "",
        "shape": [1, 1, 1],
        "zero_point": 0,
        "rates": [
            {
                "id": "a",
                "steps": [100],
                "lanes": 2,
                "groups": [group],
            }
        ],
    }
    if message is None:
        latent = np.full((1, 1, 1), 99, np.uint8)
        rates = parse_rates(json.dumps(values), "rates.json")
        assert wire.decode(wire.encode(latent, rates.rates[0]), rates) == 100
        return
    with pytest.raises(UserError, match=message):
        parse_rates(json.dumps(values), "rates.json")


@pytest.mark.parametrize("key", ["head", "shape", "zero_point", "rates"])
def test_a_key_that_is_missing_is_named(rates, key):
    values = json.loads(rates_text(rates))
    del values[key]
    with pytest.raises(UserError, match=f"{key} is missing"):
        parse_rates(json.dumps(values), "rates.json")


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "null", '{"format": 1, "head": "", "shape": 3, "zero_point": 0}'])
def test_text_that_is_no_file_of_rates_is_refused(text):
    with pytest.raises(UserError, match=r"rates\.json is not a valid file of rates"):
        parse_rates(text, "rates.json")


def test_six_rates_of_twelve_channels_fit_into_64_kilobytes():
    text = rates_text(fitted_rates((15, 15, 12), (1, 2, 4, 8, 12, 16), count=100))
    assert len(text) <= 64 << 10
