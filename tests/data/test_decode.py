import io
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.data.decode import decode_image, image_size, jpeg_header
from bottlefit_jax.errors import UserError
from tests.data.pictures import encode, noise

PICTURE = Image.fromarray(noise(45, 62, seed=0))


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def files() -> dict[str, bytes]:
    alpha = Image.fromarray(np.tile(np.arange(62, dtype=np.uint8) * 4, (45, 1)))
    rgba, grey_alpha = PICTURE.copy(), PICTURE.convert("L")
    rgba.putalpha(alpha)
    grey_alpha.putalpha(alpha)
    rotated = PICTURE.getexif()
    rotated[0x0112] = 6
    return {
        "jpeg": encode(PICTURE),
        "jpeg 4:4:4": encode(PICTURE, subsampling=0),
        "jpeg progressive": encode(PICTURE, progressive=True),
        "jpeg grey": encode(PICTURE.convert("L")),
        "jpeg cmyk": encode(PICTURE.convert("CMYK")),
        "jpeg with an orientation": encode(PICTURE, exif=rotated),
        "png": encode(PICTURE, "PNG"),
        "png grey": encode(PICTURE.convert("L"), "PNG"),
        "png bilevel": encode(PICTURE.convert("1"), "PNG"),
        "png palette": encode(PICTURE.convert("P"), "PNG"),
        "png palette and transparency": encode(PICTURE.convert("P"), "PNG", transparency=3),
        "png alpha": encode(rgba, "PNG"),
        "png grey alpha": encode(grey_alpha, "PNG"),
        "bmp": encode(PICTURE, "BMP"),
        "tiff": encode(PICTURE, "TIFF"),
        "webp": encode(PICTURE, "WEBP"),
        "ppm": encode(PICTURE, "PPM"),
    }


@pytest.mark.parametrize("kind", files())
def test_every_kind_equals_pillow_to_the_bit(kind):
    data = files()[kind]
    image = decode_image(data, kind)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, with_pillow(data))


def test_16_bit_pictures_keep_their_high_byte():
    deep = noise(45, 62, seed=1).astype(np.uint16) * 257 - np.uint16(3) * (noise(45, 62, seed=1) > 0)
    colour = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(colour, "colour"), deep >> 8)
    for kind in ("PNG", "TIFF"):
        grey = decode_image(encode(Image.fromarray(deep[..., 0]), kind), kind)
        np.testing.assert_array_equal(grey, np.repeat(deep[..., :1] >> 8, 3, axis=2))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg cmyk", "png", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.8, 0.99])
def test_truncated_picture_is_named(kind, kept):
    data = files()[kind]
    with pytest.raises(UserError, match=r"^some/file\.jpg: ") as error:
        decode_image(data[: int(kept * len(data))], "some/file.jpg")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
def test_jpeg_without_its_end_marker_is_truncated(cut):
    with pytest.raises(UserError, match="truncated"):
        decode_image(encode(PICTURE)[:-cut], "x.jpg")


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9" * 9])
def test_what_is_no_picture_is_named(data):
    with pytest.raises(UserError, match=r"^x: "):
        decode_image(data, "x")


def test_bytes_after_the_end_marker_are_legal():
    data = encode(PICTURE)
    np.testing.assert_array_equal(decode_image(data + b"\0" * 50 + b"more", "x.jpg"), with_pillow(data))


def test_thumbnail_in_the_header_does_not_hide_truncation():
    thumbnail = encode(noise(8, 8, seed=2))
    data = encode(PICTURE, exif=b"Exif\0\0" + thumbnail)
    with pytest.raises(UserError):
        decode_image(data[: data.index(thumbnail) + len(thumbnail)], "x.jpg")
    np.testing.assert_array_equal(decode_image(data, "x.jpg"), decode_image(encode(PICTURE), "x.jpg"))


def test_header_says_size_components_and_passes():
    for kind, components, one_pass in (
        ("jpeg", 3, True),
        ("jpeg progressive", 3, False),
        ("jpeg grey", 1, True),
        ("jpeg cmyk", 4, True),
        ("jpeg with an orientation", 3, True),
    ):
        header = jpeg_header(files()[kind])
        assert header is not None
        assert (header.height, header.width, header.components, header.one_pass) == (45, 62, components, one_pass)
        assert image_size(files()[kind]) == (45, 62)
    assert image_size(files()["png"]) is None


SAMPLINGS = {name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("411", "420", "422", "440", "444")}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("restarts", [0, 5])
@pytest.mark.parametrize("progressive", [0, 1])
def test_upper_rows_equal_those_of_the_whole_without_a_word(sampling, restarts, progressive, capfd):
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling], cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    picture = np.random.default_rng(0).integers(0, 256, (120, 75, 3), dtype=np.uint8)
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", picture, options)[1].tobytes()
    header = jpeg_header(data)
    assert header is not None
    assert header.one_pass == (not restarts and not progressive)
    whole = decode_image(data, "x.jpg")
    for rows in (1, 2, 15, 16, 17, 31, 32, 33, 64, 95, 96, 97, 119, 120):
        np.testing.assert_array_equal(decode_image(data, "x.jpg", rows=rows), whole[:rows])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", files())
def test_upper_rows_of_every_kind(kind):
    data = files()[kind]
    np.testing.assert_array_equal(decode_image(data, kind, rows=10), decode_image(data, kind)[:10])


def test_truncated_picture_is_found_though_only_its_top_is_wanted():
    data = encode(noise(200, 50, seed=0))
    with pytest.raises(UserError, match="truncated"):
        decode_image(data[: len(data) * 3 // 4], "x.jpg", rows=10)


def test_decoding_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, data in files().items():
            decode_image(data, kind)
