import numpy as np
import PIL.Image
import pytest

from bottlefit_jax.bundle.manifest import Image
from bottlefit_jax.data import open_source
from bottlefit_jax.data.augment import resize_center_crop
from bottlefit_jax.edge.image import ImageError, files_in, preprocess
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import decode_image
from tests.images.files import UPRIGHT, make_png, readable, turned, unreadable


def target(size, resize):
    return Image(size, size, "RGB", "uint8", resize)


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (32, 32), (64, 73)])
@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (32, 32), (20, 31), (64, 73), (700, 90), (900, 901)])
def test_an_image_is_what_evaluation_sees_within_one_grey_level(shape, size, resize):
    rng = np.random.default_rng(sum(shape))
    coarse = PIL.Image.fromarray(rng.integers(0, 256, (shape[0] // 4, shape[1] // 4, 3), np.uint8))
    for image in (np.asarray(coarse.resize(shape[::-1])), rng.integers(0, 256, (*shape, 3), np.uint8)):
        expected = resize_center_crop(image, size=size, short_side=resize).astype(int)
        pixels = preprocess(image, target(size, resize)).astype(int)
        difference = np.abs(pixels - expected)
        assert difference.max() <= 1
        assert difference.mean() < 0.3


def as_evaluation_sees(folder, name, size, resize):
    """What training's source and loader make of a file."""
    for split in ("train", "val"):
        (folder / split).mkdir(exist_ok=True)
        (folder / split / "class").symlink_to(folder / "files", target_is_directory=True)
    source = open_source("folder", split="val", root=str(folder))
    (index,) = [i for i in range(len(source)) if source.image_name(i).endswith(name)]
    return resize_center_crop(source[index]["image"], size=size, short_side=resize).astype(int)


@pytest.mark.parametrize("kind", [*readable(), *unreadable()])
def test_both_sides_read_the_same_files_alike(kind, tmp_path):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "x.jpg"
    path.write_bytes({**readable(), **unreadable()}[kind])
    if kind in readable():
        expected = as_evaluation_sees(tmp_path, "x.jpg", 64, 73)
        assert np.abs(preprocess(path, target(64, 73)).astype(int) - expected).max() <= 1
    else:
        with pytest.raises(UserError) as of_training:
            as_evaluation_sees(tmp_path, "x.jpg", 64, 73)
        with pytest.raises(ImageError) as of_device:
            preprocess(path, target(64, 73))
        assert str(of_device.value).partition("files/")[2] == str(of_training.value).partition("class/")[2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_both_sides_turn_images_upright(kind, orientation, tmp_path):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "x.jpg"
    path.write_bytes(turned(orientation, kind))
    expected = as_evaluation_sees(tmp_path, "x.jpg", 32, 32)
    squares = np.asarray(UPRIGHT[orientation])
    middle = squares[:, [1, 1]] if squares.shape == (2, 3) else squares[[1, 1]]  # what a square crop has at its corners
    rows, columns = ([4, 27], [15, 16]) if squares.shape == (2, 3) else ([15, 16], [4, 27])
    assert np.abs(expected[:, :, 1][np.ix_(rows, columns)] - middle).max() <= 2
    assert np.abs(preprocess(path, target(32, 32)).astype(int) - expected).max() <= 1
    with PIL.Image.open(path) as opened:
        assert np.abs(preprocess(opened, target(32, 32)).astype(int) - expected).max() <= 1


def test_a_file_is_decoded_as_evaluation_does(tmp_path):
    rng = np.random.default_rng(0)
    image = PIL.Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # lies on its side
    image.save(tmp_path / "a.jpg", exif=exif)
    image.convert("L").save(tmp_path / "b.png")
    image.convert("P").save(tmp_path / "c.png")
    PIL.Image.fromarray(rng.integers(0, 65536, (40, 40)).astype(np.uint16)).save(tmp_path / "d.png")
    image.convert("CMYK").save(tmp_path / "e.jpg")
    for path in sorted(tmp_path.iterdir()):
        expected = decode_image(path.read_bytes(), path.name)
        assert np.array_equal(preprocess(path, target(40, 40)), expected), path.name


def test_a_long_thin_image_does_not_fill_the_memory():
    assert preprocess(np.full((1, 60_000, 3), 9, np.uint8), target(224, 256)).max() == 9


@pytest.mark.parametrize("shape", [(10, 60_000), (60_000, 10), (3, 90), (90, 3)])
def test_a_thin_image_is_what_evaluation_sees_within_one_grey_level(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = resize_center_crop(image, size=224, short_side=256).astype(int)
    assert np.abs(preprocess(image, target(224, 256)).astype(int) - expected).max() <= 1


def test_hidden_files_and_folders_are_skipped_and_broken_links_are_named(tmp_path):
    for name in ("._IMG.png", ".Trashes/501/gone.png", "IMG.png", "sub/.hidden/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "away.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [path.name for path in files_in([tmp_path])] == ["IMG.png", "away.jpg"]
    with pytest.raises(ImageError, match=r"away\.jpg: cannot be read \(a broken link\)"):
        preprocess(tmp_path / "away.jpg", target(32, 32))


def test_the_limit_of_pixels_is_that_of_training(tmp_path):
    (tmp_path / "x.png").write_bytes(make_png(2**14, 2**14 + 1, rows=1))
    with pytest.raises(ImageError, match=r"x\.png: 16385 x 16384 pixels are more than the limit of 268,435,456"):
        preprocess(tmp_path / "x.png", target(32, 32))


def test_arrays_of_another_kind_are_refused():
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7, None):
        with pytest.raises(ImageError) as caught:
            preprocess(image, target(32, 32))
        assert "\n" not in str(caught.value)


def test_a_file_that_is_not_an_image_is_one_line_with_its_name(tmp_path):
    good = tmp_path / "good.jpg"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(good)
    for name, data in (("half.jpg", good.read_bytes()[:900]), ("empty.png", b""), ("text.png", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=rf"{name}: truncated, damaged or not an image \(.+\)"):
            preprocess(tmp_path / name, target(32, 32))
    with pytest.raises(ImageError, match=r"none.png: .*No such file"):
        preprocess(tmp_path / "none.png", target(32, 32))


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
    with pytest.raises(UserError, match="empty has no image"):
        files_in([tmp_path / "empty"])
    with pytest.raises(UserError, match=r"no file or folder .*none"):
        files_in([tmp_path / "none"])
