"""What a readable image is, said once: training, evaluation and the device decode with this room and nothing else.

- **Format**: by content, not by suffix. JPEG by libjpeg-turbo (`simplejpeg`), all else by Pillow; of several images in
  a file the first.
- **Whole**: truncated or damaged data is an error. A JPEG of which libjpeg warns, or which lacks a scan, is damaged.
- **Size**: at most `MAX_PIXELS`. A JPEG above `REDUCE_ABOVE` is decoded at 1/2, 1/4 or 1/8, on both sides alike.
- **Upright**: an orientation that EXIF gives is applied.
- **RGB**: alpha is dropped, grey is repeated, 16 bits keep their high byte.

NumPy, Pillow and simplejpeg are all that it needs, so that a device can import it.
"""

from bottlefit_jax.images.decode import MAX_PIXELS, REDUCE_ABOVE, check_image, decode_image, to_rgb, upright
from bottlefit_jax.images.exif import orientation_of
from bottlefit_jax.images.names import SUFFIXES, is_hidden, printable

__all__ = [
    "MAX_PIXELS",
    "REDUCE_ABOVE",
    "SUFFIXES",
    "check_image",
    "decode_image",
    "is_hidden",
    "orientation_of",
    "printable",
    "to_rgb",
    "upright",
]
