"""What the benchmarks of the server send: latents that the bundle's own head made, raw or as payloads."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import tritonclient.grpc as triton

from bottlefit_jax.bundle import RAW, Bundle
from bottlefit_jax.codec import quantizer, wire
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.protocol.classification import Output
from bottlefit_jax.protocol.names import INPUT, PAYLOAD, PROBABILITIES
from bottlefit_jax.protocol.request import RequestMaker

TOP = 5  # classes that a device asks for


@dataclass(frozen=True)
class Images:
    """Images as a device sends them.

    Attributes:
        latents: [n, h, w, c] uint8.
        payloads: of these latents; None where they are sent raw.
        rate: of the payloads, or RAW.
    """

    latents: np.ndarray
    payloads: Sequence[bytes] | None
    rate: str


def make_images(bundle: Bundle, count: int, rate: str | None = None) -> Images:
    """Run the head on random images without fine detail, and encode the latents.

    Args:
        bundle: has the head.
        count: how many.
        rate: an id, or RAW; None is the bundle's default.

    Raises:
        UserError: the bundle has no such rate.
    """
    latents, rates = _latents(bundle, count), bundle.read_rates()
    chosen = bundle.manifest.default_rate if rate is None else rate
    if chosen == RAW or rates is None:
        return Images(latents, None, RAW)
    return Images(latents, [wire.encode(latent, rates.get(chosen)) for latent in latents], chosen)


def _latents(bundle: Bundle, count: int) -> np.ndarray:
    manifest, random = bundle.manifest, np.random.default_rng(0)
    head = Interpreter(bundle.path(manifest.head_file("litert").file))
    affine = quantizer.Affine(np.float32(manifest.latent.scale), np.int32(manifest.latent.zero_point), np.float32(0))
    latents = []
    for _ in range(count):
        coarse = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        size = (manifest.image.width, manifest.image.height)
        latent = head.run(np.asarray(PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC)))
        if head.scale is None:
            latent = quantizer.quantize(latent, affine, bits=manifest.latent.bits)
        latents.append(latent)
    return np.stack(latents)


def caller(client: Any, bundle: Bundle, images: Images, number: int = 0) -> Callable[[], Any]:
    """Return a function that sends one of the images and returns the response message.

    Payloads ask for the likeliest classes, as a device does, raw latents for the logits.
    """
    outputs = None
    if images.payloads is None:
        latent = images.latents[number % len(images.latents)][None]
        tensor = triton.InferInput(INPUT, latent.shape, "UINT8")
        tensor.set_data_from_numpy(latent)
    else:
        tensor = triton.InferInput(PAYLOAD, [1, 1], "BYTES")
        payload = images.payloads[number % len(images.payloads)]
        tensor.set_data_from_numpy(np.array([[payload]], np.object_))
        classes = min(TOP, bundle.manifest.model.num_classes)
        outputs = [triton.InferRequestedOutput(PROBABILITIES, class_count=classes)]
    name = bundle.manifest.name
    return lambda: client.infer(name, [tensor], outputs=outputs, client_timeout=60).get_response()


def device_request(bundle: Bundle, images: Images, seconds: float) -> tuple[bytes, int]:
    """Return the message that a device sends for the first image, and how many of its bytes are not the image."""
    if images.payloads is None:
        content, maker = images.latents[0].tobytes(), RequestMaker(bundle.manifest)
    else:
        outputs = (Output(PROBABILITIES, min(TOP, bundle.manifest.model.num_classes)),)
        content, maker = images.payloads[0], RequestMaker(bundle.manifest, payload=True, outputs=outputs)
    message = maker.request(content, "", seconds).SerializeToString()
    return message, len(message) - len(content)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that `work()` takes."""
    return timed(work)[0]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `work()` takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
