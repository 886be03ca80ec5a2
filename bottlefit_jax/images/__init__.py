"""What a readable image is. Training, evaluation and the device decode with this room only.

- **Format**: recognised by content, not by suffix. JPEG is decoded by libjpeg-turbo (`simplejpeg`), all else by
  Pillow. Of several images in a file, the first is taken.
- **Whole**: truncated or damaged data is an error. A JPEG is damaged if libjpeg warns of it, or if a scan is missing.
- **Size**: at most `MAX_PIXELS`. A JPEG above `REDUCE_ABOVE` is decoded at 1/2, 1/4 or 1/8, on both sides alike.
- **Upright**: the orientation in EXIF is applied.
- **RGB**: alpha is dropped, grey is repeated, 16 bits keep their high byte.

It needs only NumPy, Pillow and simplejpeg, so that a device can import it.
"""

from bottlefit_jax.images.decode import MAX_PIXELS, REDUCE_ABOVE, check_image, decode_image, to_rgb, upright
from bottlefit_jax.images.exif import orientation_of
from bottlefit_jax.images.names import SUFFIXES, is_hidden

__all__ = [
    "MAX_PIXELS",
    "REDUCE_ABOVE",
    "SUFFIXES",
    "check_image",
    "decode_image",
    "is_hidden",
    "orientation_of",
    "to_rgb",
    "upright",
]
