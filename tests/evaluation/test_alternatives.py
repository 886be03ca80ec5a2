"""Images sent as files: a row for every format and quality, with its bytes and the teacher's accuracy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation import alternatives
from bottlefit_jax.evaluation.alternatives import Alternative
from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images


def batch(count=6, real=5):
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return {"image": images, "label": np.zeros(count, np.int32), "mask": np.arange(count) < real}


def test_every_format_and_quality_has_a_row_with_the_bytes_that_were_evaluated():
    seen = []

    def accuracy(batches):
        seen.append(np.concatenate([batch["image"] for batch in batches]))
        return {"top1": 80.0, "top5": 100.0}

    images = batch()
    rows = alternatives.sent_as_files(accuracy, [images, images])
    wanted = [(method, f"quality {quality}") for method in ("jpeg", "webp") for quality in alternatives.QUALITIES]
    assert [(row.method, row.setting) for row in rows] == wanted
    files = encode_images(images["image"], image_format="WEBP", quality=5)
    row = rows[wanted.index(("webp", "quality 5"))]
    assert row.sent == pytest.approx(np.mean([len(file) for file in files[:5]]))  # not the padding of the batch
    assert (row.images, row.device_macs) == (10, 0)
    assert row.interval95 == pytest.approx([49.0, 94.3], abs=0.1)
    assert np.array_equal(seen[4][:6], decode_images(files))


def test_a_format_that_pillow_cannot_write_is_left_out(monkeypatch):
    monkeypatch.setattr(alternatives.features, "check", lambda feature: feature == "jpg")
    rows = alternatives.sent_as_files(lambda batches: {"top1": 50.0}, [batch()])
    assert {row.method for row in rows} == {"jpeg"}


def test_no_images_are_one_clear_error():
    with pytest.raises(UserError, match="no images to send"):
        alternatives.sent_as_files(lambda batches: {"top1": 50.0}, [batch(real=0)])


def test_of_large_images_fewer_are_sent():
    assert alternatives.image_limit(32) == alternatives.MOST_IMAGES
    assert alternatives.image_limit(1024) == 85


class Toy(nn.Module):
    """A network with a convolution of 3 × 3 × 3 × 4 taps at 8 × 8 places."""

    @nn.compact
    def __call__(self, x):
        return nn.Conv(4, (3, 3))(x), {"latent": jnp.zeros(())}


def test_a_whole_network_is_counted():
    assert alternatives.network_macs(Toy(), 8) == 8 * 8 * 3 * 3 * 3 * 4


def test_a_file_is_as_good_only_with_no_more_bytes_and_no_measurable_loss():
    student = Alternative("student", "3 channels", sent=84.0, top1=99.0, images=400, device_macs=5)
    same = {"images": 400, "device_macs": 0}
    smaller = Alternative("webp", "quality 5", sent=80.0, top1=98.5, **same)
    worse = Alternative("webp", "quality 1", sent=60.0, top1=90.0, **same)
    larger = Alternative("jpeg", "quality 5", sent=673.0, top1=99.5, **same)
    assert alternatives.as_good([student, smaller, worse, larger]) == [smaller]
    assert alternatives.as_good([smaller, worse, larger]) == []
