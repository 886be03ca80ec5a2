"""Runs a network over a set of images: its accuracy, the range of its latents, and what it sends for a few of them.

Each function puts the network onto the devices once, however many batches follow.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bottlefit_jax.codec.quantizer import dequantize, dynamic_range, quantize, static_range
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training.sharding import put_alone, put_batch, put_replicated, replicated, split

Batches = Iterable[dict[str, np.ndarray]]
EvalStep = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


def create_eval_step(
    module: nn.Module,
    *,
    mesh: Mesh,
    mean: Sequence[float],
    std: Sequence[float],
    class_indices: Sequence[int] | None = None,
) -> EvalStep:
    """Make the jitted `eval_step(variables, batch) -> {"top1", "top5", "count", "by_class", "bad"}`, sums over a batch.

    The step is kept: equal arguments give the same one, which is compiled once in a process.

    Args:
        module: it runs in evaluation mode, its quantiser included.
        mesh: the batch is split over it.
        mean: of the images' channels, for `normalise`.
        std: likewise.
        class_indices: the columns of the logits that are the dataset's classes, or None for all.
    """
    indices = None if class_indices is None else tuple(class_indices)
    return _eval_step(module, mesh, tuple(mean), tuple(std), indices)


@functools.lru_cache(maxsize=4)  # a comparison evaluates one teacher many times
def _eval_step(
    module: nn.Module,
    mesh: Mesh,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    class_indices: tuple[int, ...] | None,
) -> EvalStep:
    def eval_step(variables, batch):
        logits, _ = module.apply(variables, normalise(batch["image"], mean, std), train=False)
        counts = correct_counts(logits, batch["label"], batch["mask"], class_indices=class_indices, by_class=True)
        bad = batch["mask"] & ~jnp.isfinite(logits).all(axis=-1)
        return {**counts, "bad": bad.sum(dtype=jnp.int32)}

    whole = replicated(mesh)
    return jax.jit(eval_step, in_shardings=(whole, split(mesh)), out_shardings=whole)


def evaluate(
    eval_step: EvalStep,
    variables: Any,
    batches: Batches,
    *,
    mesh: Mesh,
    name: str = "network",
) -> dict[str, float]:
    """Return the accuracy over all images, {"top1", "top5"} in percent; arguments and errors are `count_correct`'s."""
    return percentages(count_correct(eval_step, variables, batches, mesh=mesh, name=name))


def count_correct(
    eval_step: EvalStep,
    variables: Any,
    batches: Batches,
    *,
    mesh: Mesh,
    name: str = "network",
) -> dict[str, Any]:
    """Count the correct images among all.

    Args:
        eval_step: from `create_eval_step`.
        variables: of its network, on the host or the mesh.
        batches: from `data.eval_batches`.
        mesh: of all devices.
        name: "teacher" or "student", for the message of an error.

    Returns:
        {"top1", "top5", "count"}: integers; "by_class": int32, the correct ones of each class.

    Raises:
        UserError: no images, or non-finite logits.
    """
    variables = put_replicated(mesh, variables)
    total: dict[str, jax.Array] | None = None
    for batch in batches:
        counts = eval_step(variables, put_batch(mesh, batch))
        total = counts if total is None else jax.tree.map(jnp.add, total, counts)
        jax.block_until_ready(total)  # with many steps dispatched ahead, XLA's CPU devices can deadlock
    if total is None:
        raise UserError("there are no images to evaluate on")
    sums = jax.device_get(total)
    by_class = np.asarray(sums.pop("by_class"))
    sums = {key: int(value) for key, value in sums.items()}
    require_finite(sums, name)
    return {**sums, "by_class": by_class}


def predict(
    module: nn.Module,
    variables: Any,
    batches: Batches,
    *,
    mesh: Mesh,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Return the teacher's class for each row of all hosts' batches, int32 [N], rows that only fill a batch included.

    Args:
        module: the teacher.
        variables: of the teacher, on the host or the mesh.
        batches: from `data.eval_batches`, this host's.
        mesh: of all devices.
        mean: of the images' channels, for `normalise`.
        std: likewise.

    Raises:
        UserError: no images, or non-finite logits.
    """

    def answer(variables, batch):
        logits = module.apply(variables, normalise(batch["image"], tuple(mean), tuple(std)), train=False)[0]
        bad = batch["mask"] & ~jnp.isfinite(logits).all(axis=-1)
        counts = {"bad": bad.sum(dtype=jnp.int32), "count": batch["mask"].sum(dtype=jnp.int32)}
        return logits.astype(jnp.float32).argmax(-1).astype(jnp.int32), counts

    whole = replicated(mesh)
    step = jax.jit(answer, in_shardings=(whole, split(mesh)), out_shardings=whole)
    variables, classes = put_replicated(mesh, variables), []
    for batch in batches:
        found, counts = jax.device_get(step(variables, put_batch(mesh, batch)))
        require_finite({key: int(value) for key, value in counts.items()}, "teacher")
        classes.append(found)
    if not classes:
        raise UserError("there are no images to evaluate on")
    return np.concatenate(classes)


def require_finite(sums: Mapping[str, int], name: str) -> None:
    """Raise UserError if some images' logits were not finite.

    Args:
        sums: over all batches: {"bad", "count"}.
        name: "teacher" or "student".
    """
    if sums["bad"]:
        raise UserError(
            f"the {name} diverged when it was trained: its output is not finite for {sums['bad']} of {sums['count']} "
            "evaluation images; a lower learning rate may help"
        )


def calibrate(
    module: nn.Module,
    variables: Any,
    batches: Batches,
    *,
    per_channel: bool,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, np.ndarray]:
    """Measure the range of the encoder's latents, for a static quantiser.

    Args:
        module: a student.
        variables: of the student, on the host or replicated over a mesh.
        batches: images of the training split, from `data.eval_batches`; every host needs all of them.
        per_channel: a range for each channel instead of one.
        mean: of the images' channels, for `normalise`.
        std: likewise.

    Returns:
        {"low", "high"}: float32, of shape [c] or ().

    Raises:
        UserError: non-finite latents.
    """
    variables = put_alone(variables)
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for batch in batches:
        extremes = _extremes(
            variables,
            *put_alone((batch["image"], batch["mask"])),
            module=module,
            per_channel=per_channel,
            mean=tuple(mean),
            std=tuple(std),
        )
        least, most = jax.device_get(extremes)
        low, high = np.minimum(low, least), np.maximum(high, most)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError("the latents of the calibration images are not finite")
    return {"low": np.asarray(low, np.float32), "high": np.asarray(high, np.float32)}


@functools.partial(jax.jit, static_argnames=("module", "per_channel", "mean", "std"))
def _extremes(variables, image, mask, *, module: nn.Module, per_channel: bool, mean: Any, std: Any):
    """Return the least and the largest latent of one batch; a function of the file's, so that it is compiled once."""
    latent = jnp.asarray(module.apply(variables, normalise(image, mean, std), method="encode"), jnp.float32)
    mask = mask[:, None, None, None]
    axes = (0, 1, 2) if per_channel else None
    return jnp.where(mask, latent, jnp.inf).min(axes), jnp.where(mask, latent, -jnp.inf).max(axes)


def send_and_classify(
    module: nn.Module,
    variables: Any,
    image: np.ndarray,
    *,
    bottleneck: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    class_indices: Sequence[int] | None = None,
    arrive: Callable[[np.ndarray], np.ndarray] = lambda latents: latents,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what arrives of a few images' latents, and the classes that the student predicts from that.

    Args:
        module: a student.
        variables: of the student, on the host or a device.
        image: [N, H, W, 3] uint8.
        bottleneck: the student's options; without bits, q has 8.
        mean: of the images' channels, for `normalise`.
        std: likewise.
        class_indices: as in `create_eval_step`.
        arrive: what arrives of [N, h, w, c] uint8 that are sent.

    Returns:
        q [N, h, w, c] uint8, and predicted classes [N] int32.
    """
    variables = put_alone(variables)
    bits = bottleneck["bits"] or 8
    encode = jax.jit(functools.partial(module.apply, method="encode"))
    latent = np.asarray(encode(variables, normalise(jnp.asarray(image), mean, std)), np.float32)
    if bottleneck["range"] == "static" and bottleneck["bits"]:
        ranges = jax.device_get(variables["ranges"]["quantizer"])
        affine = static_range(ranges["low"], ranges["high"], bits=bits)
    else:
        axes = (1, 2) if bottleneck["per"] == "channel" else (1, 2, 3)  # a device sends one image at a time
        affine = dynamic_range(latent, bits=bits, axis=axes)
    q = arrive(quantize(latent, affine, bits=bits))
    received = dequantize(q, affine) if bottleneck["bits"] else latent
    logits = np.asarray(jax.jit(functools.partial(module.apply, method="decode"))(variables, jnp.asarray(received))[0])
    if class_indices is not None:
        logits = logits[:, np.asarray(class_indices)]
    return q, logits.argmax(-1).astype(np.int32)
