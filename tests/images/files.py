"""Image files that both sides must decode alike, and files that both must refuse."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.images import encode, noise

IMAGE = Image.fromarray(noise(120, 160, seed=0))


@functools.cache
def damaged_jpegs() -> dict[str, bytes]:
    """JPEGs that are damaged in the middle only."""
    files = {}
    detailed = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    kinds = {
        "baseline": encode(detailed),
        "progressive": encode(detailed, progressive=True),
        "grey": encode(detailed.convert("L")),
        "cmyk": encode(detailed.convert("CMYK")),
        "restarts": encode(detailed, restart_marker_rows=1),
    }
    for kind, data in kinds.items():
        scan = data.index(b"\xff\xda")
        middle = scan + (len(data) - scan) // 2
        files[f"{kind}, second half gone"] = data[:middle] + b"\xff\xd9"
        files[f"{kind}, 512 bytes gone"] = data[:middle] + data[middle + 512 :]
        files[f"{kind}, second half zeros"] = data[:middle] + bytes(len(data) - middle + 8192)
        if kind != "progressive":  # there zero bits may be an image's
            files[f"{kind}, 512 bytes zeros"] = data[:middle] + bytes(512) + data[middle + 512 :]
    return files


@functools.cache
def unreadable() -> dict[str, bytes]:
    """Files that are not a whole image."""
    jpeg, progressive, png = encode(IMAGE), encode(IMAGE, progressive=True), encode(IMAGE, "PNG")
    second_scan = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    frame = jpeg.index(b"\xff\xc0")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x55
    return {
        **damaged_jpegs(),
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html>404</html>",
        "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "jpeg, one scan of many": progressive[:second_scan] + b"\xff\xd9",
        "jpeg, no end marker": jpeg[:-2],
        "jpeg, header claims more rows": jpeg[: frame + 5] + struct.pack(">H", 240) + jpeg[frame + 7 :],
        "jpeg, header claims no rows": jpeg[: frame + 5] + struct.pack(">H", 0) + jpeg[frame + 7 :],
        "jpeg behind a byte order mark": b"\xef\xbb\xbf" + jpeg,
        "png, half of it": png[: len(png) // 2],
        "png, a bit flipped": bytes(flipped),
        "png, half of the rows": make_png(120, 160, rows=60),
        "png interlaced, half of the data": make_png(120, 160, rows=60, interlaced=True),
        **{f"{kind}, half of it": encode(IMAGE, kind)[:1000] for kind in ("GIF", "WEBP", "TIFF", "BMP", "PPM")},
    }


@functools.cache
def readable() -> dict[str, bytes]:
    """Whole images, some of them unusual."""
    jpeg, png = encode(IMAGE), encode(IMAGE, "PNG")
    two = {"save_all": True, "append_images": [IMAGE.rotate(90)]}
    exif = b"\xff\xe1" + struct.pack(">H", 40) + b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 22
    return {
        "jpeg": jpeg,
        "jpeg progressive": encode(IMAGE, progressive=True),
        "jpeg grey": encode(IMAGE.convert("L")),
        "jpeg cmyk": encode(IMAGE.convert("CMYK")),
        "jpeg rgb": encode(IMAGE, keep_rgb=True),
        "jpeg of one colour": encode(Image.new("RGB", (800, 600), (255, 255, 255)), optimize=True),
        "jpeg and zeros behind it": jpeg + bytes(8192),
        "jpeg and another one behind it": jpeg + jpeg,
        "jpeg with fill bytes": jpeg[:2] + b"\xff\xff\xff" + jpeg[2:],
        "jpeg with damaged EXIF": jpeg[:2] + exif + jpeg[2:],
        "jpeg of two images": encode(IMAGE, "MPO", **two),
        "png": png,
        "png that ends in black": make_png(120, 160, rows=120),
        "png interlaced": make_png(120, 160, rows=120, interlaced=True),
        "png and bytes behind it": png + b"junk" * 10,
        "png animated": encode(IMAGE, "PNG", **two),
        "png called .jpg": png,
        "gif": encode(IMAGE, "GIF"),
        "gif animated": encode(IMAGE, "GIF", **two),
        "webp animated": encode(IMAGE, "WEBP", lossless=True, **two),
        "tiff": encode(IMAGE, "TIFF"),
        "tiff jpeg": encode(IMAGE, "TIFF", compression="jpeg"),
        "bmp": encode(IMAGE, "BMP"),
        "pgm": encode(IMAGE.convert("L"), "PPM"),
        "ppm": encode(IMAGE, "PPM"),
        "one pixel": encode(IMAGE.crop((0, 0, 1, 1)), "PNG"),
        "one column": encode(IMAGE.crop((0, 0, 1, 100)), "PNG"),
    }


def make_png(height: int, width: int, *, rows: int, interlaced: bool = False) -> bytes:
    """A black PNG of `height` rows whose data has `rows` rows; whole where the two are equal."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    length = rows * (1 + 3 * width)
    if interlaced:
        passes = ((8, 8, 0, 0), (8, 8, 0, 4), (8, 4, 4, 0), (4, 4, 0, 2), (4, 2, 2, 0), (2, 2, 0, 1), (2, 1, 1, 0))
        sizes = [(-(-(height - top) // down), -(-(width - left) // right)) for down, right, top, left in passes]
        length = sum(h * (1 + 3 * w) for h, w in sizes) * rows // height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return data + chunk(b"IDAT", zlib.compress(bytes(length))) + chunk(b"IEND", b"")


def turned(orientation: int, kind: str) -> bytes:
    """A lossless or almost lossless image of six squares, 0 to 200 in reading order, with this EXIF orientation."""
    squares = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 16, axis=0), 16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(squares).convert("RGB").save(file, kind, exif=exif, **options)
    return file.getvalue()


# What a viewer shows of `turned`, by orientation.
UPRIGHT = {
    1: [[0, 40, 80], [120, 160, 200]],
    2: [[80, 40, 0], [200, 160, 120]],
    3: [[200, 160, 120], [80, 40, 0]],
    4: [[120, 160, 200], [0, 40, 80]],
    5: [[0, 120], [40, 160], [80, 200]],
    6: [[120, 0], [160, 40], [200, 80]],
    7: [[200, 80], [160, 40], [120, 0]],
    8: [[80, 200], [40, 160], [0, 120]],
}
