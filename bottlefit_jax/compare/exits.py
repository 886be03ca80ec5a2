"""A student with an early exit: which images are classified on the device, and what is sent of the others."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.compare.setting import Setting
from bottlefit_jax.compare.teacher import mean_and_p95
from bottlefit_jax.evaluation.accuracy import correct_counts, percentages
from bottlefit_jax.evaluation.payloads import RAW
from bottlefit_jax.evaluation.split_student import TOGETHER, SplitStudent
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training import sharding

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the exit's confidence
NEVER = 1.01  # a threshold above every confidence: everything is sent


def evaluate_exits(
    setting: Setting,
    student: Any,
    variables: Any,
    bottleneck: dict[str, Any],
    thresholds: Sequence[float],
    *,
    rates: Rates,
    rate: str,
) -> list[dict[str, Any]]:
    """Measure accuracy and bytes for each threshold of the exit's confidence, its largest probability.

    Args:
        setting: of the comparison.
        student: a network with an early exit and a quantiser.
        variables: of the student, on the host.
        bottleneck: its options.
        thresholds: an image whose confidence reaches it is classified on the device, and nothing is sent.
        rates: of the feature that is sent.
        rate: the id of one of them, or RAW.

    Returns:
        For each threshold {"threshold", "top1", "top5", "bytes", "sent"}; `sent` is the share of images sent, 0..1.
    """
    indices = setting.networks.class_indices
    halves = SplitStudent(
        student, variables, bottleneck=bottleneck, mesh=setting.mesh, class_indices=indices, **setting.pixels
    )
    exit_logits, on_mesh = _create_exit(setting, student), sharding.put_replicated(setting.mesh, variables)
    device_logits, server_logits, labels, sizes = [], [], [], []
    for batch in setting.batches():
        mask, sent = batch["mask"], halves.send(batch)
        device_logits.append(jax.device_get(exit_logits(on_mesh, sharding.put_batch(setting.mesh, batch)))[mask])
        received, lengths = _through(sent.latents[mask], rates, rate)
        sizes += [length + halves.range_bytes for length in lengths]
        for start in range(0, len(received), TOGETHER):
            chosen = np.flatnonzero(mask)[start : start + TOGETHER]
            server_logits.append(halves.logits(received[start : start + TOGETHER], halves.affine_of(sent, chosen)))
        labels.append(batch["label"][mask])
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


def _through(latents: np.ndarray, rates: Rates, rate: str) -> tuple[np.ndarray, list[int]]:
    """Return what arrives of latents [N, h, w, c] uint8, and the bytes of each payload."""
    if rate == RAW:
        return latents, [latent.size for latent in latents]
    payloads = [wire.encode(latent, rates.get(rate)) for latent in latents]
    return wire.decode_batch(payloads, rates)[0], [len(payload) for payload in payloads]


def _create_exit(setting: Setting, student: Any) -> Any:
    """Compile `f(variables, batch) -> the exit's logits`."""
    indices = setting.networks.class_indices
    columns = slice(None) if indices is None else np.asarray(indices)

    def run(variables, batch):
        _, early = student.apply(variables, normalise(batch["image"], **setting.pixels), method="device_outputs")
        return early[:, columns]

    return jax.jit(
        run,
        in_shardings=(sharding.replicated(setting.mesh), sharding.split(setting.mesh)),
        out_shardings=sharding.split(setting.mesh),
    )
