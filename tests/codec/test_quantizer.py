import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bottlefit_jax.codec.quantizer import Affine, dequantize, dynamic_range, quantize, static_range
from bottlefit_jax.errors import UserError

GOLDENS = Path(__file__).parents[1] / "goldens"
CASES = {case["case"]: case for case in json.loads((GOLDENS / "manifest.json").read_text())["quantizer"]}
REFUSED = {"contains_nan", "contains_inf", "empty", "huge_overflowing_range"}
LOST = {  # by the reference; see the module's docstring
    "uniform_0_1",
    "positive_5_to_10",
    "positive_1_to_10",
    "negative_m10_to_m5",
    "negative_m10_to_m1",
    "constant_positive",
    "constant_negative",
    "constant_zero",
    "single_element",
    "tiny_range_around_1",
}
SAME = sorted(CASES.keys() - REFUSED - LOST)
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS / "quantizer.npz") as arrays:
        return dict(arrays)


def round_trip(x, *, bits=8, axis=None):
    affine = dynamic_range(x, bits=bits, axis=axis)
    q = quantize(x, affine, bits=bits)
    return affine, q, dequantize(q, affine)


@jax.jit
def compiled(x):
    affine = dynamic_range(x, xp=jnp)
    q = quantize(x, affine, xp=jnp)
    return affine, q, dequantize(q, affine, xp=jnp)


def within(x, decoded, allowed):
    """Whether |decoded - x| <= allowed, in float64, with a margin for the rounding of float32 itself."""
    x, decoded = np.asarray(x, np.float64), np.asarray(decoded, np.float64)
    margin = 4 * EPS * np.abs(x).max() + 1.2e-38
    return np.all(np.abs(decoded - x) <= np.asarray(allowed, np.float64) * (1 + 300 * EPS) + margin)


@pytest.mark.parametrize("case", SAME)
def test_numpy_equals_the_reference_to_the_bit(golden, case):
    affine, q, back = round_trip(golden[f"{case}/x"])
    assert affine.scale == golden[f"{case}/scale"]
    assert affine.zero_point == golden[f"{case}/zero_point"]
    assert affine.offset == 0
    np.testing.assert_array_equal(q, golden[f"{case}/q"])
    np.testing.assert_array_equal(back, golden[f"{case}/dequantized"])
    assert (q.dtype, back.dtype, affine.scale.dtype) == (np.uint8, np.float32, np.float32)


@pytest.mark.parametrize("case", [case for case in SAME if not CASES[case].get("needs_subnormals")])
def test_a_compiled_function_equals_the_reference(golden, case):
    affine, q, back = compiled(golden[f"{case}/x"])
    np.testing.assert_allclose(affine.scale, golden[f"{case}/scale"], rtol=2.5e-7)
    assert affine.zero_point == golden[f"{case}/zero_point"]
    np.testing.assert_array_equal(q, golden[f"{case}/q"])
    np.testing.assert_allclose(back, golden[f"{case}/dequantized"], rtol=2.5e-7)
    assert (q.dtype, back.dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize("case", sorted(LOST))
def test_values_that_the_reference_loses_are_kept(golden, case):
    x = golden[f"{case}/x"]
    affine, _, back = round_trip(x)
    assert within(x, back, affine.scale / 2)
    if "dequantized" in CASES[case]:
        assert np.abs(back - x).max() < CASES[case]["max_abs_change"]


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_numpy_refuses_values_without_a_range(golden, case):
    with pytest.raises(UserError, match=r"NaN or infinite|no values|more than float32"):
        dynamic_range(golden[f"{case}/x"])


@pytest.mark.parametrize("wrong", [[1, np.nan], [1, np.inf], [-np.inf, 0], [np.inf, np.inf], [-3e38, 3e38]])
def test_a_compiled_function_gives_no_finite_values_without_a_range(wrong):
    assert not np.isfinite(compiled(np.float32(wrong))[2]).any()


def test_the_largest_numbers_still_have_a_range():
    x = np.float32([0, 3.4e38])
    for back in (round_trip(x)[2], compiled(x)[2]):
        np.testing.assert_allclose(back, x, rtol=1e-6)


def test_one_bad_channel_does_not_affect_the_others():
    x = np.float32([[0, 1], [np.nan, 3]])
    affine = dynamic_range(x, axis=0, xp=jnp)
    back = dequantize(quantize(x, affine, xp=jnp), affine, xp=jnp)
    assert np.isnan(back[:, 0]).all()
    np.testing.assert_allclose(back[:, 1], x[:, 1], atol=0.01)


def test_subnormal_values_have_a_normal_scale_in_a_compiled_function(golden):
    for case in ("tiny_values_1e_minus_38", "subnormal_1e_minus_42"):
        affine, _, back = compiled(golden[f"{case}/x"])
        assert affine.scale >= np.finfo(np.float32).tiny
        assert np.isfinite(back).all()
        assert np.abs(np.asarray(back) - golden[f"{case}/x"]).max() <= affine.scale


@given(st.data(), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_a_range_on_one_side_round_trips_within_half_a_step(data, bits):
    magnitudes = st.floats(2.0**-100, 2.0**100, width=32)
    x = data.draw(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=magnitudes))
    x = x * np.float32(data.draw(st.sampled_from([1, -1])))
    affine, q, back = round_trip(x, bits=bits)
    assert within(x, back, affine.scale / 2)
    assert q.max() <= 2**bits - 1
    assert affine.zero_point == 0


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(0, 300), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_a_tiny_range_round_trips_within_half_a_step(centre, steps, bits):
    x = np.float32(centre)
    values = [x]
    for _ in range(steps % 20):
        values.append(np.nextafter(values[-1], np.float32(np.inf)))
    x = np.asarray(values, np.float32)
    affine, _, back = round_trip(x, bits=bits)
    allowed = affine.scale if x.min() <= 0 <= x.max() else affine.scale / 2
    assert within(x, back, allowed)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 8))
def test_a_constant_comes_back_exactly(value, bits):
    x = np.full((2, 3), value, np.float32)
    affine, q, back = round_trip(x, bits=bits)
    np.testing.assert_array_equal(back, x)
    assert affine.scale == 1
    assert not q.any()


@given(hnp.arrays(np.float32, (4, 3, 3), elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_each_channel_round_trips_by_its_own_range(x, bits):
    affine, _, back = round_trip(x, bits=bits, axis=(0, 1))
    assert affine.scale.shape == affine.zero_point.shape == affine.offset.shape == (1, 1, 3)
    for channel in range(3):
        part = x[..., channel]
        scale = affine.scale[0, 0, channel]
        allowed = scale if part.min() <= 0 <= part.max() else scale / 2
        assert within(part, back[..., channel], allowed)


@given(hnp.arrays(np.float32, 20, elements=st.floats(-(2.0**100), 2.0**100, width=32)), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_the_order_of_values_is_kept(x, bits):
    x = np.sort(x)
    affine, q, back = round_trip(x, bits=bits)
    assert np.all(np.diff(q.astype(int)) >= 0)
    assert np.all(np.diff(back) >= 0)
    assert 0 <= affine.zero_point <= 2**bits - 1


@given(hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)))
@settings(max_examples=150, deadline=None)
def test_numpy_and_a_compiled_function_agree(x):
    if 0 < x.max() - x.min() < 1e-30:
        return  # XLA flushes the scale of such a range to zero
    affine, q, _ = round_trip(x)
    jax_affine, jax_q, jax_back = compiled(x)
    np.testing.assert_allclose(jax_affine.scale, affine.scale, rtol=2.5e-7)
    assert jax_affine.zero_point == affine.zero_point
    assert jax_affine.offset == affine.offset
    np.testing.assert_array_equal(jax_q, q)
    np.testing.assert_allclose(jax_back, dequantize(q, affine), rtol=1e-6, atol=float(affine.scale) * 1e-4)


def test_negative_values_up_to_zero_keep_their_zero_point_when_compiled():
    rng = np.random.default_rng(0)
    for _ in range(300):
        x = np.append(0, -np.abs(rng.standard_normal(7)) * 10 ** rng.uniform(-9, 9)).astype(np.float32)
        assert compiled(x)[0].zero_point == dynamic_range(x).zero_point


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 8))
@settings(deadline=None)
def test_a_static_range_holds_its_bounds_and_zero_exactly(a, b, bits):
    low, high = sorted((a, b))
    affine = static_range(low, high, bits=bits)
    assert 0 <= affine.zero_point <= 2**bits - 1
    assert affine.offset == 0
    x = np.linspace(low, high, 17, dtype=np.float64).astype(np.float32)
    assert within(x, dequantize(quantize(x, affine, bits=bits), affine), affine.scale / 2)
    assert dequantize(quantize(np.float32([0]), affine, bits=bits), affine) == 0


def test_a_static_range_rounds_its_zero_point_and_saturates():
    affine = static_range(-7.9, 247.1)
    np.testing.assert_allclose(affine.scale, 1, rtol=1e-6)
    assert affine.zero_point == 8
    np.testing.assert_array_equal(quantize(np.float32([-1e30, 1e30]), affine), [0, 255])
    np.testing.assert_array_equal(static_range([5, -10], [10, -5]).zero_point, [0, 255])
    jax_affine = jax.jit(lambda low, high: static_range(low, high, xp=jnp))(jnp.float32(-7.9), jnp.float32(247.1))
    np.testing.assert_array_equal(jax_affine.zero_point, 8)


def test_any_real_dtype_is_computed_in_float32():
    x = np.arange(-3, 9)
    for dtype in (np.int32, np.float64, np.float16):
        affine, q, back = round_trip(x.astype(dtype))
        np.testing.assert_array_equal(q, quantize(x.astype(np.float32), affine))
        assert affine.scale.dtype == back.dtype == np.float32
    half = dynamic_range(jnp.asarray(x, jnp.bfloat16), xp=jnp)
    assert half.scale.dtype == jnp.float32


@pytest.mark.parametrize("bits", [0, 9, -1, 2.5, True, None, "8"])
def test_a_wrong_number_of_bits_is_quoted(bits):
    x = np.float32([1, 2])
    affine = Affine(np.float32(1), np.int32(0), np.float32(0))
    for call in (
        dynamic_range,
        lambda x, bits: quantize(x, affine, bits=bits),
        lambda x, bits: static_range(0, 1, bits=bits),
    ):
        with pytest.raises(UserError, match=f"bits is {bits!r}"):
            call(x, bits=bits)


def test_invalid_bounds_and_values_are_errors_in_numpy():
    with pytest.raises(UserError, match="must not be above"):
        static_range(2, 1)
    with pytest.raises(UserError, match="more than float32"):
        static_range(-3e38, 3e38)
    with pytest.raises(UserError, match="NaN or infinite"):
        static_range(np.nan, 1)
    with pytest.raises(UserError, match="1 of 2 values"):
        quantize(np.float32([0, np.nan]), static_range(0, 1))
    with pytest.raises(UserError, match="no values"):
        dynamic_range(jnp.zeros((0, 3)), xp=jnp)


def test_the_codec_runs_without_jax():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import numpy as np\n"
        "from bottlefit_jax.codec import dynamic_range, quantize\n"
        "a = dynamic_range(np.float32([1, 2]))\n"
        "print(quantize(np.float32([1, 2]), a).tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "00ff"
