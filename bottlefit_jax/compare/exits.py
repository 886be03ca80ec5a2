"""A student with an early exit: which images are classified on the device, and what is sent of the others."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.codec.packing import RANGE_BYTES
from bottlefit_jax.codec.quantizer import dequantize, dynamic_range, quantize
from bottlefit_jax.compare.setting import Setting
from bottlefit_jax.compare.teacher import mean_and_p95
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training import sharding

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the exit's confidence
NEVER = 1.01  # a threshold above every confidence: everything is sent
LEVEL = 9  # of zlib


def evaluate_exits(
    setting: Setting, student: Any, variables: Any, bottleneck: dict[str, Any], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Measure accuracy and bytes for each threshold of the exit's confidence, its largest probability.

    Args:
        setting: of the comparison.
        student: a network with an early exit.
        variables: of the student, on the host.
        bottleneck: its options; its feature is sent in `bits` bits a value with a range for each image, compressed with
            zlib channel by channel.
        thresholds: an image whose confidence reaches it is classified on the device, and nothing is sent.

    Returns:
        For each threshold {"threshold", "top1", "top5", "bytes", "sent"}; `sent` is the share of images sent, 0..1.
    """
    run = _create_step(setting, student, bottleneck["bits"])
    on_mesh = sharding.put_replicated(setting.mesh, variables)
    device_logits, server_logits, labels, sizes = [], [], [], []
    for batch in setting.batches():
        q, early, late = jax.device_get(run(on_mesh, sharding.put_batch(setting.mesh, batch)))
        mask = batch["mask"]
        device_logits.append(early[mask])
        server_logits.append(late[mask])
        labels.append(batch["label"][mask])
        sizes += [len(zlib.compress(feature.transpose(2, 0, 1).tobytes(), LEVEL)) + RANGE_BYTES for feature in q[mask]]
    early, late, label = np.concatenate(device_logits), np.concatenate(server_logits), np.concatenate(labels)
    confidence = np.asarray(jax.nn.softmax(jnp.asarray(early), axis=-1)).max(-1)
    everything = np.ones(len(label), bool)
    rows = []
    for threshold in thresholds:
        sent = ~(confidence >= threshold)
        counts = correct_counts(np.where(sent[:, None], late, early), label, everything)
        rows.append(
            {
                "threshold": threshold,
                **percentages(counts),
                "bytes": mean_and_p95(np.where(sent, sizes, 0)),
                "sent": float(sent.mean()),
            }
        )
    return rows


def _create_step(setting: Setting, student: Any, bits: int) -> Any:
    """Compile `f(variables, batch) -> (feature as sent, the exit's logits, the tail's logits)`."""
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
