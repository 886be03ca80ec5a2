"""Milliseconds on one core, in LiteRT as on the device: all parts in turn in one process.

Every network is measured as a float32 model, whatever a bundle would hold, so that the methods differ in nothing else.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.compare.setting import Setting
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.evaluation.image_bytes import decode_images, encode_images
from bottlefit_jax.experiment.inputs import Variables
from bottlefit_jax.models.normalise import normalise

ROUNDS = 25
Run = Callable[[], Any]


def measure(
    setting: Setting,
    images: Mapping[str, tuple[str, int]],
    students: Mapping[str, tuple[Any, Variables]],
) -> dict[str, dict[str, float]]:
    """Measure the milliseconds of device and server.

    Args:
        setting: of the comparison.
        images: name -> (Pillow's format, quality).
        students: name -> (network, variables).

    Returns:
        name -> {"device", "server"}; the teacher on the device is "local".

    Raises:
        UserError: LiteRT or its converter is not installed.
    """
    teacher = _of_teacher(setting)
    runs = {"local": {"device": teacher}}
    runs |= {name: _of_images(setting, *sent, teacher) for name, sent in images.items()}
    runs |= {name: _of_student(setting, *student) for name, student in students.items()}
    medians = _in_turn({(name, side): run for name, sides in runs.items() for side, run in sides.items()})
    return {name: {"server": 0.0, **{side: medians[name, side] for side in sides}} for name, sides in runs.items()}


def _in_turn(parts: Mapping[Any, Run]) -> dict[Any, float]:
    """Return the median milliseconds of each part; every round runs each once, and the first round is not counted."""
    seconds: dict[Any, list[float]] = {name: [] for name in parts}
    gc.collect()
    for number in range(ROUNDS + 1):
        for name, run in parts.items():
            begin = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


def _of_teacher(setting: Setting) -> Run:
    """Make a run of the whole teacher on one image."""
    teacher, variables = setting.networks.teacher, setting.networks.teacher_variables
    return _model(
        lambda image: teacher.apply(variables, normalise(image, **setting.pixels), train=False)[0], _image(setting)
    )


def _of_student(setting: Setting, student: Any, variables: Any) -> dict[str, Run]:
    """Make {"device", "server"}: everything up to the latent (and the early exit), and everything after it."""
    h, w = student.latent_size((setting.image_size, setting.image_size))
    latent = np.random.default_rng(0).integers(0, 256, (h, w, student.bottleneck.channels), np.uint8)

    def device(image: jax.Array) -> jax.Array:
        outputs = student.apply(variables, normalise(image, **setting.pixels), method="device_outputs")
        return jnp.concatenate([each.reshape(1, -1) for each in outputs], axis=1)  # LiteRT models here have one output

    def server(q: jax.Array) -> jax.Array:
        received = q.astype(jnp.float32) * np.float32(0.02) - np.float32(2.0)  # every range takes the same time
        size = (setting.image_size, setting.image_size)
        return student.apply(variables, received, method="decode", image_size=size)[0]

    return {"device": _model(device, _image(setting)), "server": _model(server, latent)}


def _of_images(setting: Setting, image_format: str, quality: int, teacher: Run) -> dict[str, Run]:
    """Make {"device", "server"}: compressing an image; decompressing it and running the teacher."""
    images = _image(setting)[None]
    files = encode_images(images, image_format=image_format, quality=quality)

    def server() -> None:
        decode_images(files)
        teacher()

    return {
        "device": lambda: encode_images(images, image_format=image_format, quality=quality),
        "server": server,
    }


def _image(setting: Setting) -> np.ndarray:
    """Return the first evaluation image, [H, W, 3] uint8."""
    return next(iter(setting.batches(limit=1)))["image"][0]


def _model(function: Callable[[jax.Array], jax.Array], example: np.ndarray) -> Run:
    from export.litert import to_tflite  # needs libraries that training does not
    from export.tracing import plain_convolutions

    def traced(x: jax.Array) -> jax.Array:
        with plain_convolutions():
            return function(x)

    blob = to_tflite(traced, (1, *example.shape), output_name="result")
    interpreter = Interpreter(blob, threads=1)
    return lambda: interpreter.run(example)
