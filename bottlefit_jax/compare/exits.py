"""A student with an early exit: who is answered on the device, and what the others send."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.codec.packing import RANGE_BYTES
from bottlefit_jax.codec.quantizer import dequantize, dynamic_range, quantize
from bottlefit_jax.compare.image_input import summary
from bottlefit_jax.compare.setting import Setting
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training import sharding

LEVEL = 9  # of zlib


def evaluate_exits(
    setting: Setting, student: Any, variables: Any, bottleneck: dict[str, Any], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Accuracy and bytes for each threshold of the exit's confidence, its largest probability.

    Args:
        setting: of the comparison.
        student: with an early exit.
        variables: of the student, on the host.
        bottleneck: its options; its feature travels in `bits` with a range for each image, compressed with zlib channel
            by channel.
        thresholds: an image whose confidence reaches it is answered on the device, and nothing is sent.

    Returns:
        For each threshold {"threshold", "top1", "top5", "bytes", "sent"}; `sent` is the share of images sent, 0..1.
    """
    run = _create_step(setting, student, bottleneck["bits"])
    on_mesh = sharding.put_replicated(setting.mesh, variables)
    logits, exits, labels, sizes = [], [], [], []
    for batch in setting.batches():
        q, early, late = jax.device_get(run(on_mesh, sharding.put_batch(setting.mesh, batch)))
        mask = batch["mask"]
        exits.append(early[mask])
        logits.append(late[mask])
        labels.append(batch["label"][mask])
        sizes += [len(zlib.compress(one.transpose(2, 0, 1).tobytes(), LEVEL)) + RANGE_BYTES for one in q[mask]]
    late, early, label = np.concatenate(logits), np.concatenate(exits), np.concatenate(labels)
    confidence = np.asarray(jax.nn.softmax(jnp.asarray(early), axis=-1)).max(-1)
    every = np.ones(len(label), bool)
    rows = []
    for threshold in thresholds:
        sent = ~(confidence >= threshold)
        counts = correct_counts(np.where(sent[:, None], late, early), label, every)
        rows.append(
            {
                "threshold": threshold,
                **percentages(counts),
                "bytes": summary(np.where(sent, sizes, 0)),
                "sent": float(sent.mean()),
            }
        )
    return rows


def _create_step(setting: Setting, student: Any, bits: int) -> Any:
    """`f(variables, batch) -> (feature as sent, the exit's logits, the tail's logits)`."""
    indices = setting.networks.class_indices
    columns = slice(None) if indices is None else np.asarray(indices)

    def run(variables, batch):
        images = normalise(batch["image"], **setting.pixels)
        latent, early = student.apply(variables, images, method="device_outputs")
        wide = latent.astype(jnp.float32)
        affine = dynamic_range(wide, bits=bits, axis=(1, 2, 3), xp=jnp)
        q = quantize(wide, affine, bits=bits, xp=jnp)
        late, _ = student.apply(variables, dequantize(q, affine, xp=jnp), method="decode")
        return q, early[:, columns], late[:, columns]

    return jax.jit(
        run,
        in_shardings=(sharding.replicated(setting.mesh), sharding.split(setting.mesh)),
        out_shardings=sharding.split(setting.mesh),
    )
