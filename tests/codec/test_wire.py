import hashlib
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rate import symbols_of, values_of
from bottlefit_jax.codec.rates import Rates, make_rates, parse_rates, rates_text
from bottlefit_jax.errors import ProtocolError, UserError
from tests.codec.latents import HEAD, ZERO_POINT, fitted_rates, smooth_latents

SHAPES = [(7, 7, 9), (29, 29, 12), (1, 1, 1), (1, 5, 2), (4, 1, 3), (2, 2, 1), (5, 5, 3)]
SMALL = (5, 5, 3)


def coarsened(latents: np.ndarray, step: int) -> np.ndarray:
    return values_of(step, ZERO_POINT)[symbols_of(step, ZERO_POINT)[latents]]


def entropy_bytes(latents: np.ndarray) -> float:
    """Return the bytes of a latent whose channels have each the best code without contexts."""
    bits = 0.0
    for channel in latents.reshape(-1, latents.shape[-1]).T:
        shares = np.bincount(channel) / len(channel)
        bits -= (shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    return bits * latents.shape[1] * latents.shape[2] / 8


def signed(payload: bytes, rates: Rates) -> bytes:
    """Return a payload with the check that its content has."""
    return payload[:1] + wire._check(payload[:1], payload[wire.HEADER :], rates.key) + payload[wire.HEADER :]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_payload_decodes_to_the_latent_that_its_steps_leave(shape):
    rates = fitted_rates(shape)
    for rate in rates.rates:
        for latent in smooth_latents(3, shape, seed=2):
            received = wire.decode(wire.encode(latent, rate), rates)
            assert (received == coarsened(latent, rate.steps[0])).all()


@pytest.mark.parametrize("shape", [SMALL, (7, 7, 9)])
def test_noise_that_no_code_was_made_for_decodes_and_is_no_longer_than_its_values(shape):
    rates = fitted_rates(shape)
    for seed, rate in enumerate(rates.rates):
        noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        payload = wire.encode(noise, rate)
        assert (wire.decode(payload, rates) == coarsened(noise, rate.steps[0])).all()
        assert len(payload) <= wire.HEADER + noise.size


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    steps=st.lists(st.integers(1, 255), min_size=2, max_size=2),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=20, deadline=None)
def test_any_latent_comes_back_within_half_a_step(shape, steps, zero_point, seed):
    random = np.random.default_rng(seed)
    training, latent = (random.integers(0, 256, (*more, *shape), dtype=np.uint8) for more in ((4,), ()))
    training[1:] = training[0]
    steps = steps[: shape[2]]
    rates = make_rates([fit_rate(training, steps, zero_point=zero_point, id="a")], head=HEAD, shape=shape)
    received = wire.decode(wire.encode(latent, rates.rates[0]), rates)
    assert (np.abs(received.astype(int) - latent.astype(int)) <= np.array(steps) // 2 + 1).all()
    exact = wire.decode(wire.encode(np.full(shape, zero_point, np.uint8), rates.rates[0]), rates)
    assert (exact == zero_point).all()


@pytest.mark.parametrize("shape", [(7, 7, 9), (29, 29, 12)])
@pytest.mark.parametrize("step", [1, 4, 16, 48])
def test_payloads_are_near_the_entropy_of_their_symbols(shape, step):
    training = smooth_latents(200, shape, seed=1)
    rate = fit_rate(training, (step,) * shape[2], zero_point=ZERO_POINT, id="a")
    sent = smooth_latents(50, shape, seed=2)
    mean = np.mean([len(wire.encode(latent, rate)) for latent in sent])
    assert mean <= 1.03 * entropy_bytes(symbols_of(step, ZERO_POINT)[sent]) + 16


def test_neighbours_save_8_percent_where_pixels_depend_on_them():
    shape = (29, 29, 12)
    rate = fit_rate(smooth_latents(100, shape, seed=1), (4,) * 12, zero_point=ZERO_POINT, id="a")
    sent = smooth_latents(30, shape, seed=2)
    mean = np.mean([len(wire.encode(latent, rate)) for latent in sent])
    assert mean <= 0.92 * entropy_bytes(symbols_of(4, ZERO_POINT)[sent])


def golden_latents() -> np.ndarray:
    number, y, x, c = np.indices((6, *SMALL))
    latents = ZERO_POINT + (number * 5 + y * 7 + x * 3 + c * 11) % (23 + 9 * number) - 11
    latents[-1] = (y * 151 + x * 67 + c * 101)[0] % 256  # no code was made for this one
    return latents.astype(np.uint8)


def test_the_bytes_of_a_payload_do_not_change():
    """A device in the field has this encoder and these tables, and its payloads must stay readable."""
    golden = json.loads((Path(__file__).parent / "golden_payloads.json").read_text())
    rates = parse_rates(json.dumps(golden["rates"]), "the golden file")
    for latent, payloads in zip(golden_latents(), golden["payloads"], strict=True):
        for rate, payload in zip(rates.rates, payloads, strict=True):
            assert wire.encode(latent, rate).hex() == payload
            assert (wire.decode(bytes.fromhex(payload), rates) == coarsened(latent, rate.steps[0])).all()


def test_the_golden_payloads_have_every_mode():
    golden = json.loads((Path(__file__).parent / "golden_payloads.json").read_text())
    modes = {int(payload[:2], 16) >> 4 & 3 for payloads in golden["payloads"] for payload in payloads}
    assert modes == {wire.CODED, wire.ESCAPED, wire.STORED}


LARGE = (24, 24, 12)


def strange_latent(every: int = 8) -> np.ndarray:
    """A latent of which every eighth pixel is like none that codes were made for."""
    latent = smooth_latents(1, LARGE, seed=3)[0]
    y, x, c = np.indices(LARGE)
    return np.where((y * 24 + x) % every == 0, (y * 151 + x * 67 + c * 101) % 256, latent).astype(np.uint8)


def test_a_latent_with_many_values_without_a_code_is_coded_all_the_same():
    """Else such an image would be as large as without a codec, which was so for one photograph in seven."""
    rates, latent = fitted_rates(LARGE), strange_latent()
    usual = np.mean([len(wire.encode(each, rates.rates[1])) for each in smooth_latents(9, LARGE, seed=2)])
    payload = wire.encode(latent, rates.rates[1])
    assert payload[0] >> 4 & 3 == wire.MANY
    assert int.from_bytes(payload[wire.HEADER : wire.HEADER + 2], "big") > 255
    assert (wire.decode(payload, rates) == coarsened(latent, 4)).all()
    assert usual < len(payload) < usual + latent.size / 4
    _, problems = wire.decode_batch([signed(payload[:cut], rates) for cut in range(wire.HEADER, len(payload))], rates)
    assert all(problems)


def test_rates_of_format_1_have_no_such_payloads():
    """A server in the field does not know them; with these rates the device has what it had."""
    values = json.loads(rates_text(fitted_rates(LARGE)))
    older = parse_rates(json.dumps({**values, "format": 1}), "rates.json")
    assert json.loads(rates_text(older))["format"] == 1
    payload = wire.encode(strange_latent(), older.rates[1])
    assert payload[0] >> 4 & 3 == wire.STORED
    with pytest.raises(ProtocolError, match="in mode 3; this bundle has 3 rates, modes 0 to 2"):
        wire.decode(bytes([payload[0] | 0x30]) + payload[1:], older)


def test_the_bytes_of_a_large_payload_do_not_change():
    """As above, with the same tables, in format 2."""
    golden = json.loads((Path(__file__).parent / "golden_payloads.json").read_text())
    rates = parse_rates(json.dumps({**golden["rates"], "format": 2, "shape": [24, 24, 3]}), "the golden file")
    payloads = [wire.encode(strange_latent(every=2)[..., :3], rate) for rate in rates.rates]
    assert {payload[0] >> 4 & 3 for payload in payloads} == {wire.STORED, wire.MANY}
    assert (
        hashlib.sha256(b"".join(payloads)).hexdigest()
        == "8044371eca4195b5f29372757618e96c1b1b221c4ffbabc41f27b87bf034732b"
    )


def test_a_batch_gives_each_payload_what_it_gives_alone():
    rates = fitted_rates(SMALL)
    latents = smooth_latents(9, SMALL, seed=3)
    payloads = [wire.encode(latent, rates.rates[index % 3]) for index, latent in enumerate(latents)]
    payloads[4] = payloads[4][:-1]
    received, problems = wire.decode_batch(payloads, rates)
    assert [problem is not None for problem in problems] == [index == 4 for index in range(9)]
    for index in range(9):
        if index != 4:
            assert (received[index] == wire.decode(payloads[index], rates)).all()
    assert not received[4].any()


def test_no_payloads_make_an_empty_batch():
    latents, problems = wire.decode_batch([], fitted_rates(SMALL))
    assert latents.shape == (0, *SMALL)
    assert problems == []


def test_a_payload_of_other_tables_is_refused():
    ours, theirs = fitted_rates(SMALL), fitted_rates(SMALL, head="cd" * 32)
    payload = wire.encode(smooth_latents(1, SMALL)[0], theirs.rates[1])
    with pytest.raises(ProtocolError, match="damaged, or was made with the rates of another bundle"):
        wire.decode(payload, ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda payload: b"", "has 0 bytes; one of this bundle has 4 to 79"),
        (lambda payload: payload[:3], "has 3 bytes"),
        (lambda payload: payload + bytes(100), "one of this bundle has 4 to 79"),
        (lambda payload: bytes([payload[0] ^ 0xC0]) + payload[1:], "is of version 2, and this package reads version 1"),
        (lambda payload: bytes([payload[0] | 15]) + payload[1:], "names rate 15"),
        (lambda payload: bytes([payload[0] | 0x30]) + payload[1:], "damaged"),
        (lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]), "damaged"),
        (lambda payload: payload[:-1], "damaged"),
    ],
)
def test_a_payload_that_was_changed_is_refused_in_one_line(change, message):
    rates = fitted_rates(SMALL)
    payload = wire.encode(smooth_latents(1, SMALL)[0], rates.rates[0])
    with pytest.raises(ProtocolError, match=message) as raised:
        wire.decode(change(payload), rates)
    assert "\n" not in str(raised.value)


FEW = fitted_rates(SMALL, count=16)


@given(st.binary(max_size=90), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=300, deadline=None)
def test_whatever_has_the_right_check_is_a_latent_or_an_error(body, mode, number):
    rates = FEW
    payload = signed(bytes([wire.VERSION << 6 | mode << 4 | number]) + bytes(3) + body, rates)
    latents, problems = wire.decode_batch([payload], rates)
    assert (latents.shape, latents.dtype) == ((1, *SMALL), np.uint8)
    assert problems[0] is None or "\n" not in problems[0]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SMALL, (12, 12, 12)])
def test_a_hundred_thousand_bad_payloads_take_bounded_time_and_memory(shape):
    rates, random = fitted_rates(shape), np.random.default_rng(0)
    good = [wire.encode(latent, rate) for rate in rates.rates for latent in smooth_latents(20, shape, seed=4)]
    count = 0
    tracemalloc.start()
    slowest = 0.0
    while count < 50_000:
        payloads = [_damaged(good[random.integers(len(good))], random, rates) for _ in range(50)]
        start = time.process_time()
        latents, problems = wire.decode_batch(payloads, rates)
        slowest = max(slowest, time.process_time() - start)
        assert latents.shape == (50, *shape)
        assert all(problem is None or "\n" not in problem for problem in problems)
        count += 50
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert slowest < 5


def _damaged(payload: bytes, random: np.random.Generator, rates: Rates) -> bytes:
    """Return a payload with changed bits, cut short, with bytes inserted, or random; half of them well signed."""
    data = bytearray(payload)
    kind = random.integers(4)
    if kind == 0:
        for place in random.integers(0, 8 * len(data), random.integers(1, 6)):
            data[place // 8] ^= 1 << place % 8
    elif kind == 1:
        del data[random.integers(len(data)) :]
    elif kind == 2:
        place = random.integers(len(data))
        data[place:place] = random.bytes(int(random.integers(1, 9)))
    else:
        data[1:] = random.bytes(int(random.integers(0, rates.size)))
    if random.integers(2) and len(data) >= wire.HEADER:
        return signed(bytes([wire.VERSION << 6 | data[0] & 0x3F]) + bytes(data[1:]), rates)
    return bytes(data)


@pytest.mark.parametrize(
    "latent",
    [
        np.zeros((5, 5, 2), np.uint8),
        np.zeros((5, 5, 3), np.int8),
        np.zeros((25, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_a_latent_of_another_shape_or_dtype_is_refused(latent):
    with pytest.raises(UserError, match=r"the rate is for uint8 \[h, w, 3\]"):
        wire.encode(latent, fitted_rates(SMALL).rates[0])
