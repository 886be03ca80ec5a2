import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages, wilson_interval


def counted(*args, **options):
    return {name: int(value) for name, value in jax.jit(lambda *a: correct_counts(*a, **options))(*args).items()}


def test_counts_agree_with_sorting():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((200, 12)).astype(np.float32), rng.integers(0, 12, 200).astype(np.int32)
    mask = rng.random(200) < 0.7
    best = np.argsort(-logits, axis=1)
    expected = {
        "top1": int((mask & (best[:, 0] == labels)).sum()),
        "top5": int((mask & (best[:, :5] == labels[:, None]).any(axis=1)).sum()),
        "count": int(mask.sum()),
    }
    assert counted(logits, labels, mask) == expected


def test_counts_are_int32_and_add_up_on_the_device():
    counts = correct_counts(jnp.eye(3), jnp.arange(3, dtype=jnp.int32), jnp.ones(3, bool))
    assert all(value.dtype == jnp.int32 for value in counts.values())
    both = jax.tree.map(jnp.add, counts, counts)
    assert percentages(both) == {"top1": 100.0, "top5": 100.0}


def test_rows_that_fill_a_batch_do_not_count():
    logits = np.array([[0, 1], [0, 1], [np.nan, 0]], np.float32)
    assert counted(logits, np.int32([1, 1, -7]), np.array([True, False, False])) == {"top1": 1, "top5": 1, "count": 1}


def test_equal_logits_are_ranked_by_class_number():
    labels = np.arange(7, dtype=np.int32)
    assert counted(np.zeros((7, 7), np.float32), labels, np.ones(7, bool)) == {"top1": 1, "top5": 5, "count": 7}


def test_a_nan_logit_is_never_correct():
    logits = np.full((2, 4), np.nan, np.float32)
    assert counted(logits, np.int32([0, 3]), np.ones(2, bool)) == {"top1": 0, "top5": 0, "count": 2}
    logits = np.array([[1, np.nan, 0]], np.float32)
    assert counted(logits, np.int32([0]), np.ones(1, bool))["top1"] == 0


def test_of_a_teacher_with_more_classes_only_the_datasets_are_ranked():
    logits = np.array([[9, 1, 0, 3], [9, 0, 0, 5], [9, 4, 0, 3]], np.float32)
    counts = counted(logits, np.int32([0, 1, 1]), np.ones(3, bool), class_indices=[3, 1])
    assert counts == {"top1": 2, "top5": 3, "count": 3}


def test_the_correct_images_of_each_class_are_counted():
    logits = np.array([[9, 1, 0, 3], [9, 0, 0, 5], [9, 4, 0, 3], [9, 4, 0, 3]], np.float32)
    labels, mask = np.int32([0, 0, 1, 1]), np.array([True, True, True, False])
    counts = correct_counts(logits, labels, mask, class_indices=[3, 1], by_class=True)
    assert counts["by_class"].tolist() == [2, 1]
    assert int(counts["top1"]) == 3


def test_other_dtypes_are_accepted():
    logits = jnp.asarray([[0.0, 1.0]], jnp.bfloat16)
    assert counted(logits, np.uint8([1]), np.ones(1, np.float32))["top1"] == 1


def test_an_accuracy_of_no_images_is_refused():
    with pytest.raises(UserError, match="0 images"):
        percentages({"top1": 0, "top5": 0, "count": 0})
    assert percentages({"top1": np.int32(1), "top5": 2, "count": 3}) == pytest.approx(
        {"top1": 100 / 3, "top5": 200 / 3}
    )


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(352, 355, 97.546, 99.712), (0, 10, 0.0, 27.753), (10, 10, 72.247, 100.0), (500, 1000, 46.907, 53.093)],
)
def test_wilson_intervals_are_those_of_statsmodels(correct, count, low, high):
    assert wilson_interval(correct, count) == pytest.approx((low, high), abs=1e-3)


@pytest.mark.parametrize(("correct", "count"), [(1, 0), (3, 2), (-1, 5)])
def test_an_interval_of_invalid_counts_is_refused(correct, count):
    with pytest.raises(UserError, match="an interval needs at least 1 image"):
        wilson_interval(correct, count)
