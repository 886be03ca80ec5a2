"""The golden images of a bundle: what its files make of a few evaluation images, here, for devices to compare with."""

import numpy as np

from bottlefit_jax.bundle import identity
from bottlefit_jax.bundle.golden import Golden
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.codec.wire import encode
from bottlefit_jax.data import spread
from export.images import ImageSet
from export.open_files import OpenFiles

COUNT = 5


def golden_images(files: OpenFiles, evaluation: ImageSet, rates: Rates) -> Golden:
    """Return images spread evenly over the evaluation images, and what the files of a bundle make of them.

    Args:
        files: of the bundle.
        evaluation: at least one image.
        rates: of the bundle.
    """
    images = evaluation.images[spread(len(evaluation.images), COUNT)]
    encoded = files.encode(images)
    sent = files.sent(encoded)
    local = files.runs.get("local.tflite")
    return Golden(
        images=images,
        latents={"litert": encoded, "onnx": np.stack([files.runs["head.onnx"](image) for image in images])},
        sent=sent,
        payloads={rate.id: identity(*(encode(latent, rate) for latent in sent)) for rate in rates.rates},
        logits=files.runs["tail.onnx"](sent),
        local=None if local is None else np.stack([local(image) for image in images]),
    )
