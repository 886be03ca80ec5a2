import numpy as np
import pytest
from PIL import Image as pillow

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.data.augment import resize_center_crop
from bottlefit_jax.data.decode import decode_image
from bottlefit_jax.edge.picture import PictureError, files_in, prepare
from bottlefit_jax.errors import UserError


def wanted(size, resize):
    return Image(size, size, "RGB", "uint8", resize)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (32, 32), (64, 73)])
@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (32, 32), (20, 31), (64, 73), (700, 90), (900, 901)])
def test_a_picture_is_what_evaluation_sees_within_one_grey_level(shape, size, resize):
    rng = np.random.default_rng(sum(shape))
    coarse = pillow.fromarray(rng.integers(0, 256, (shape[0] // 4, shape[1] // 4, 3), np.uint8))
    for image in (np.asarray(coarse.resize(shape[::-1])), rng.integers(0, 256, (*shape, 3), np.uint8)):
        expected = resize_center_crop(image, size=size, short_side=resize).astype(int)
        found = prepare(image, wanted(size, resize)).astype(int)
        difference = np.abs(found - expected)
        assert difference.max() <= 1
        assert difference.mean() < 0.3


def test_a_file_is_decoded_as_evaluation_does(tmp_path):
    rng = np.random.default_rng(0)
    image = pillow.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    exif = pillow.Exif()
    exif[0x112] = 6  # lies on its side, which training ignores
    image.save(tmp_path / "a.jpg", exif=exif)
    image.convert("L").save(tmp_path / "b.png")
    image.convert("P").save(tmp_path / "c.png")
    pillow.fromarray(rng.integers(0, 65536, (40, 40)).astype(np.uint16)).save(tmp_path / "d.png")
    image.convert("CMYK").save(tmp_path / "e.jpg")
    for path in sorted(tmp_path.iterdir()):
        expected = decode_image(path.read_bytes(), path.name)
        assert np.array_equal(prepare(path, wanted(40, 40)), expected), path.name


def test_a_long_thin_picture_does_not_fill_the_memory():
    assert prepare(np.full((1, 60_000, 3), 9, np.uint8), wanted(224, 256)).max() == 9


def test_arrays_of_another_kind_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7, None):
        with pytest.raises(PictureError) as caught:
            prepare(image, wanted(32, 32))
        assert "\n" not in str(caught.value)


def test_what_is_no_picture_is_one_line_with_its_name(tmp_path):
    good = tmp_path / "good.jpg"
    pillow.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(good)
    for name, data in (("half.jpg", good.read_bytes()[:900]), ("empty.png", b""), ("text.png", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PictureError, match=rf"{name}: truncated, damaged or not a picture \(.+\)"):
            prepare(tmp_path / name, wanted(32, 32))
    with pytest.raises(PictureError, match=r"none.png: .*No such file"):
        prepare(tmp_path / "none.png", wanted(32, 32))


def test_folders_are_searched_in_order(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.jpeg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in files_in([tmp_path, tmp_path / "notes.txt"])] == [
        "a.png",
        "b.JPG",
        "c.jpeg",
        "notes.txt",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no picture"):
        files_in([tmp_path / "empty"])
    with pytest.raises(UserError, match=r"no file or folder .*none"):
        files_in([tmp_path / "none"])
