import io
import struct
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.errors import UserError
from bottlefit_jax.images import check_image, decode, decode_image, orientation_of
from bottlefit_jax.images.jpeg import jpeg_header
from tests.data.images import encode, noise
from tests.images.files import UPRIGHT, make_png, readable, turned, unreadable

IMAGE = Image.fromarray(noise(45, 62, seed=0))


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def files() -> dict[str, bytes]:
    alpha = Image.fromarray(np.tile(np.arange(62, dtype=np.uint8) * 4, (45, 1)))
    rgba, grey_alpha = IMAGE.copy(), IMAGE.convert("L")
    rgba.putalpha(alpha)
    grey_alpha.putalpha(alpha)
    rotated = IMAGE.getexif()
    rotated[0x0112] = 6
    return {
        "jpeg": encode(IMAGE),
        "jpeg 4:4:4": encode(IMAGE, subsampling=0),
        "jpeg progressive": encode(IMAGE, progressive=True),
        "jpeg grey": encode(IMAGE.convert("L")),
        "jpeg cmyk": encode(IMAGE.convert("CMYK")),
        "jpeg with an orientation": encode(IMAGE, exif=rotated),
        "png": encode(IMAGE, "PNG"),
        "png grey": encode(IMAGE.convert("L"), "PNG"),
        "png bilevel": encode(IMAGE.convert("1"), "PNG"),
        "png palette": encode(IMAGE.convert("P"), "PNG"),
        "png palette and transparency": encode(IMAGE.convert("P"), "PNG", transparency=3),
        "png alpha": encode(rgba, "PNG"),
        "png grey alpha": encode(grey_alpha, "PNG"),
        "bmp": encode(IMAGE, "BMP"),
        "tiff": encode(IMAGE, "TIFF"),
        "webp": encode(IMAGE, "WEBP"),
        "ppm": encode(IMAGE, "PPM"),
    }


@pytest.mark.parametrize("kind", files())
def test_every_kind_equals_pillow_to_the_bit(kind):
    data = files()[kind]
    image = decode_image(data, kind)
    assert image.dtype == np.uint8
    theirs = with_pillow(data)
    np.testing.assert_array_equal(image, np.rot90(theirs, -1) if "orientation" in kind else theirs)


def test_16_bit_images_keep_their_high_byte():
    deep = noise(45, 62, seed=1).astype(np.uint16) * 257 - np.uint16(3) * (noise(45, 62, seed=1) > 0)
    colour = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(colour, "colour"), deep >> 8)
    for kind in ("PNG", "TIFF"):
        grey = decode_image(encode(Image.fromarray(deep[..., 0]), kind), kind)
        np.testing.assert_array_equal(grey, np.repeat(deep[..., :1] >> 8, 3, axis=2))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg cmyk", "png", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.8, 0.99])
def test_truncated_image_is_named(kind, kept):
    data = files()[kind]
    with pytest.raises(UserError, match=r"^some/file\.jpg: ") as error:
        decode_image(data[: int(kept * len(data))], "some/file.jpg")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
def test_jpeg_without_its_end_marker_is_truncated(cut):
    with pytest.raises(UserError, match="truncated"):
        decode_image(encode(IMAGE)[:-cut], "x.jpg")


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9" * 9])
def test_data_that_is_not_an_image_is_named(data):
    with pytest.raises(UserError, match=r"^x: "):
        decode_image(data, "x")


def test_bytes_after_the_end_marker_are_legal():
    data = encode(IMAGE)
    np.testing.assert_array_equal(decode_image(data + b"\0" * 50 + b"more", "x.jpg"), with_pillow(data))


def test_thumbnail_in_the_header_does_not_hide_truncation():
    thumbnail = encode(noise(8, 8, seed=2))
    data = encode(IMAGE, exif=b"Exif\0\0" + thumbnail)
    with pytest.raises(UserError):
        decode_image(data[: data.index(thumbnail) + len(thumbnail)], "x.jpg")
    np.testing.assert_array_equal(decode_image(data, "x.jpg"), decode_image(encode(IMAGE), "x.jpg"))


def test_the_header_has_size_components_and_whether_it_is_progressive():
    for kind, components, progressive in (
        ("jpeg", 3, False),
        ("jpeg progressive", 3, True),
        ("jpeg grey", 1, False),
        ("jpeg cmyk", 4, False),
        ("jpeg with an orientation", 3, False),
    ):
        header = jpeg_header(files()[kind])
        assert header is not None
        values = (header.height, header.width, len(header.components), header.progressive)
        assert values == (45, 62, components, progressive)
    assert jpeg_header(files()["jpeg with an orientation"]).orientation == 6


SAMPLINGS = {name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("411", "420", "422", "440", "444")}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("restarts", [0, 5])
@pytest.mark.parametrize("progressive", [0, 1])
def test_every_sampling_equals_pillow_to_the_bit_without_a_message(sampling, restarts, progressive, capfd):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling], cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    image = np.random.default_rng(0).integers(0, 256, (120, 75, 3), dtype=np.uint8)
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", image, options)[1].tobytes()
    np.testing.assert_array_equal(decode_image(data, "x.jpg"), with_pillow(data))
    check_image(data, "x.jpg")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", readable())
def test_odd_files_are_read_with_pillows_pixels_without_a_message(kind, capfd):
    data = readable()[kind]
    check_image(data, kind)
    image = decode_image(data, kind)
    assert capfd.readouterr() == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF
        np.testing.assert_array_equal(image, with_pillow(data))


@pytest.mark.parametrize("kind", unreadable())
def test_damaged_files_are_refused_in_one_line_that_names_them(kind, capfd):
    for work in (decode_image, check_image):
        with pytest.raises(UserError, match=r"^some/file\.jpg: truncated, damaged or not an image \(\d+ bytes; .+\)$"):
            work(unreadable()[kind], "some/file.jpg")
    assert capfd.readouterr() == ("", "")


def test_the_check_gives_the_verdict_of_decoding():
    data, rng = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), np.random.default_rng(1)
    verdicts = []
    for _ in range(100):
        changed = bytearray(data)
        changed[int(rng.integers(len(data) // 4, len(data)))] ^= int(rng.integers(1, 256))
        verdicts.append([is_read(work, bytes(changed)) for work in (decode_image, check_image)])
    assert [decoded for decoded, _ in verdicts] == [checked for _, checked in verdicts]
    assert 20 < sum(decoded for decoded, _ in verdicts) < 80


def is_read(work, data):
    try:
        work(data, "x.jpg")
    except UserError:
        return False
    return True


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_image_is_upright(kind, orientation):
    image = decode_image(turned(orientation, kind), "x.jpg")
    assert np.abs(image[8::16, 8::16, 1].astype(int) - UPRIGHT[orientation]).max() <= 2


@pytest.mark.parametrize("order", "<>")
def test_invalid_orientations_are_ignored(order):
    heading = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 8, 0)
    assert orientation_of(b"Exif\0\0" + heading + entry) == 8
    assert orientation_of(heading + entry) == 8
    for value in (0, 9, 65535):
        assert orientation_of(heading + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)) == 1
    for cut in range(len(entry)):
        assert orientation_of(heading + entry[:cut]) in (1, 8)
    assert orientation_of(b"") == 1


def test_more_pixels_than_the_limit_are_refused_from_the_header():
    png = make_png(2**14, 2**14 + 1, rows=1)
    jpeg = bytearray(encode(IMAGE))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 2**14 + 1, 2**14)
    for data, size in ((png, "16385 x 16384"), (bytes(jpeg), "16384 x 16385")):
        for work in (decode_image, check_image):
            with pytest.raises(UserError, match=rf"^x: {size} pixels are more than the limit of 268,435,456 \(MAX_"):
                work(data, "x")


@pytest.mark.parametrize(("pixels", "factor"), [(3072, 1), (3071, 2), (768, 2), (767, 4), (100, 8)])
def test_a_large_jpeg_is_decoded_at_a_fraction(pixels, factor, monkeypatch):
    monkeypatch.setattr(decode, "REDUCE_ABOVE", pixels)
    opened = Image.fromarray(noise(48, 64, seed=0))
    image = decode_image(encode(opened, subsampling=0, quality=95), "x.jpg").astype(int)
    assert image.shape == (48 // factor, 64 // factor, 3)
    assert np.abs(image - np.asarray(opened.reduce(factor) if factor > 1 else opened)).mean() < 2


def test_a_file_without_enough_memory_says_so(monkeypatch):
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", lambda *args, **options: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(UserError, match=r"^x\.jpg: there is not enough memory"):
        decode_image(encode(IMAGE), "x.jpg")


def test_decoding_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, data in files().items():
            decode_image(data, kind)
