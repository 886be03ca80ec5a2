import dataclasses

import numpy as np
import pytest

from bottlefit_jax.bundle import identity, read_bundle, write_manifest
from bottlefit_jax.bundle.golden import FILE, MAX_BYTES, Golden, read_golden, write_golden
from bottlefit_jax.errors import UserError
from tests.bundle import example


def golden(**changes):
    random = np.random.default_rng(0)
    values = Golden(
        images=random.integers(0, 256, (2, 32, 32, 3), np.uint8),
        latents={
            "litert": random.integers(0, 256, (2, 5, 6, 3), np.uint8),
            "onnx": random.normal(size=(2, 5, 6, 3)).astype(np.float32),
        },
        sent=random.integers(0, 256, (2, 5, 6, 3), np.uint8),
        payloads={id: identity(id) for id in example.STEPS},
        logits=random.normal(size=(2, 4)).astype(np.float32),
        local=None,
    )
    return dataclasses.replace(values, **changes)


def bundle_with(folder, data):
    """A bundle whose file of golden images has this content."""
    example.write(folder, **example.with_rates(files={**example.FILES, FILE: data}))
    manifest = read_bundle(folder, verify=False).manifest
    return write_manifest(folder, dataclasses.replace(manifest, golden=FILE))


def written(path, **changes):
    write_golden(path / "written", golden(**changes))
    return (path / "written").read_bytes()


def test_golden_images_come_back_as_they_were_written(tmp_path):
    found = read_golden(bundle_with(tmp_path / "bundle", written(tmp_path)))
    assert found.payloads == golden().payloads
    assert found.local is None
    for name in ("images", "sent", "logits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(golden(), name), strict=True)
    for runtime, latents in golden().latents.items():
        np.testing.assert_array_equal(found.latents[runtime], latents, strict=True)


def test_the_same_golden_images_are_the_same_file(tmp_path):
    assert written(tmp_path) == written(tmp_path)


def test_a_manifest_that_names_a_file_which_is_not_there_is_refused(tmp_path):
    example.write(tmp_path, golden="golden.npz")
    with pytest.raises(UserError, match=r"files has no golden\.npz"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((2, 3), np.float32)}, r"has logits as float32 \[2, 3\]; its bundle implies .* \[2, 4\]"),
        ({"sent": np.zeros((1, 5, 6, 3), np.uint8)}, r"has sent as uint8 \[1, 5, 6, 3\]"),
        ({"sent": np.zeros((2, 5, 6, 3), np.float32)}, "has sent as float32"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, "its bundle implies"),
        ({"images": np.zeros((), np.uint8)}, "its bundle implies"),
        ({"payloads": {}}, r"its bundle implies .*payloads\.lossless"),
        ({"local": np.zeros((2, 4), np.float32)}, "has .*local"),
    ],
)
def test_golden_images_of_another_bundle_are_refused(tmp_path, changes, message):
    bundle = bundle_with(tmp_path / "bundle", written(tmp_path, **changes))
    with pytest.raises(UserError, match=message):
        read_golden(bundle)


def test_a_damaged_file_is_one_line(tmp_path):
    whole = written(tmp_path)
    for number, data in enumerate((b"", b"no archive", whole[:500], whole[:-30])):
        with pytest.raises(UserError, match="cannot be read as golden images") as caught:
            read_golden(bundle_with(tmp_path / str(number), data))
        assert "\n" not in str(caught.value)


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "pickle.npz", images=np.array([{}], object))
    with pytest.raises(UserError, match="cannot be read as golden images"):
        read_golden(bundle_with(tmp_path / "bundle", (tmp_path / "pickle.npz").read_bytes()))


def test_a_file_that_is_too_large_is_not_read_into_memory(tmp_path):
    bundle = bundle_with(tmp_path / "bundle", written(tmp_path))
    with (bundle.folder / FILE).open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="golden images have at most"):
        read_golden(bundle)
