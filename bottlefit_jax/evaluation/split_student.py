"""A student in two halves: images become integers on the device, and integers become classes on the server."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bottlefit_jax.codec.quantizer import RANGE_BYTES, Affine, dequantize, dynamic_range, quantize, static_range
from bottlefit_jax.evaluation.accuracy import correct_counts
from bottlefit_jax.evaluation.networks import Batches
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.training.sharding import put_alone, put_batch, put_replicated, replicated, split

TOGETHER = 32  # latents in a call of `SplitStudent.logits`


@dataclasses.dataclass(frozen=True)
class Sent:
    """This host's share of a batch as the device sends it, on the host.

    Attributes:
        latents: [B, h, w, c] uint8.
        affine: the range of each image, arrays of [B, 1, 1, 1 or c]; None where the receiver has it.
        label: [B] int32.
        mask: [B] bool; False for rows that only fill the batch.
        float_counts: as `SplitStudent.counts` returns them, of the latents without a quantiser.
    """

    latents: np.ndarray
    affine: Affine | None
    label: np.ndarray
    mask: np.ndarray
    float_counts: dict[str, Any]


class SplitStudent:
    """A student in two halves: images to integers, integers to classes. It is put onto the devices once."""

    def __init__(
        self,
        module: nn.Module,
        variables: Any,
        *,
        bottleneck: Mapping[str, Any],
        mesh: Mesh,
        mean: Sequence[float],
        std: Sequence[float],
        class_indices: Sequence[int] | None = None,
    ):
        """Put it onto the devices.

        Args:
            module: a student with a quantiser.
            variables: of the student, on the host or the mesh.
            bottleneck: its options. With `per` = "batch" each image has its range: a device sends one at a time.
            mesh: of all devices; batches are split over it.
            mean: of the images' channels, for `normalise`.
            std: likewise.
            class_indices: the columns of the logits that are the dataset's classes, or None for all.
        """
        self.per_channel, self.static = bottleneck["per"] == "channel", bottleneck["range"] == "static"
        self.range_bytes = 0 if self.static else RANGE_BYTES * (bottleneck["channels"] if self.per_channel else 1)
        self._mesh, self._variables = mesh, put_replicated(mesh, variables)
        self._alone = put_alone(variables)
        indices = None if class_indices is None else tuple(class_indices)
        self._halves = _Halves(
            module, bottleneck["bits"], self.static, self.per_channel, tuple(mean), tuple(std), indices
        )

    def send(self, batch: dict[str, np.ndarray]) -> Sent:
        """Return what is sent of this host's share of a batch from `data.eval_batches`; all hosts call it together."""
        latents, affine, counts = _on_mesh(self._halves, self._mesh)[0](self._variables, put_batch(self._mesh, batch))
        latents, affine = jax.tree.map(_local_rows, (latents, affine))
        return Sent(latents, affine, batch["label"], batch["mask"], _integers(counts))

    def counts(self, sent: Sent, latents: np.ndarray) -> dict[str, Any]:
        """Return `correct_counts`, by class too, and "bad", over all hosts, where other latents arrive than were sent.

        Args:
            sent: from `send`.
            latents: [B, h, w, c] uint8 that arrive.
        """
        batch: dict[str, Any] = {"latent": latents, "label": sent.label, "mask": sent.mask}
        if sent.affine is not None:
            batch.update(sent.affine._asdict())
        return _integers(_on_mesh(self._halves, self._mesh)[1](self._variables, put_batch(self._mesh, batch)))

    def training_latents(self, batches: Batches) -> tuple[np.ndarray, Affine]:
        """Return the integers of training images, [N, h, w, c] uint8, and a range that is typical of them.

        Args:
            batches: the same on every host.
        """
        found = []
        for batch in batches:
            arrays = _encode_alone(self._alone, put_alone(batch["image"]), halves=self._halves)
            keep = batch["mask"]
            found.append([leaf[keep] for leaf in jax.tree.leaves(jax.device_get(arrays))])
        latents, *affine = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        if self.static:
            return latents, self.static_affine()
        scale, zero_point, offset = (np.median(array, axis=0).astype(np.float32) for array in affine)
        return latents, Affine(scale, np.rint(zero_point), offset)

    def affine_of(self, sent: Sent, rows: np.ndarray) -> Affine:
        """Return the ranges of some rows of what was sent, for `logits`."""
        return self.static_affine() if sent.affine is None else Affine(*(leaf[rows] for leaf in sent.affine))

    def static_affine(self) -> Affine:
        """Return the range that the receiver has, where it is static."""
        ranges = jax.device_get(self._alone["ranges"]["quantizer"])
        return static_range(ranges["low"], ranges["high"], bits=self._halves.bits)

    def logits(self, latents: np.ndarray, affine: Affine) -> np.ndarray:
        """Return the dataset's logits [B, classes] of at most TOGETHER latents with their range."""
        filled = np.zeros((TOGETHER, *latents.shape[1:]), np.float32)
        filled[: len(latents)] = dequantize(latents, affine)
        return np.asarray(_logits_alone(self._alone, put_alone(filled), halves=self._halves))[: len(latents)]


@dataclasses.dataclass(frozen=True)
class _Halves:
    """The functions to compile, and all that they depend on."""

    module: Any
    bits: int
    static: bool
    per_channel: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_indices: tuple[int, ...] | None

    def encode(self, variables: Any, image: jax.Array) -> tuple[jax.Array, jax.Array, Affine | None]:
        """Return the latent, its integers, and the ranges that are sent with them."""
        latent = self.module.apply(variables, normalise(image, self.mean, self.std), method="encode")
        wide = latent.astype(jnp.float32)
        if self.static:
            affine, sent = self._static(variables), None
        else:
            axes = (1, 2) if self.per_channel else (1, 2, 3)
            affine = sent = dynamic_range(wide, bits=self.bits, axis=axes, xp=jnp)
        return latent, quantize(wide, affine, bits=self.bits, xp=jnp), sent

    def send(self, variables: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, Affine | None, dict]:
        """Return the integers of a batch, their ranges, and the counts of the student without a quantiser."""
        latent, integers, sent = self.encode(variables, batch["image"])
        return integers, sent, self._counts(variables, latent, batch)

    def receive(self, variables: Any, batch: dict[str, jax.Array]) -> dict:
        """Return the counts of integers that arrive."""
        if self.static:
            affine = self._static(variables)
        else:
            affine = Affine(*(batch[key] for key in Affine._fields))
        return self._counts(variables, dequantize(batch["latent"], affine, xp=jnp), batch)

    def logits(self, variables: Any, latent: jax.Array) -> jax.Array:
        """Return the dataset's logits of dequantised latents."""
        logits = self.module.apply(variables, latent, method="decode")[0].astype(jnp.float32)
        return logits if self.class_indices is None else logits[:, jnp.asarray(self.class_indices, jnp.int32)]

    def _static(self, variables: Any) -> Affine:
        """Return the static range, to be applied to [B, h, w, c]."""
        ranges = variables["ranges"]["quantizer"]
        bounds = [jnp.reshape(ranges[key], (1, 1, 1, -1)) for key in ("low", "high")]
        return static_range(*bounds, bits=self.bits, xp=jnp)

    def _counts(self, variables: Any, latent: jax.Array, batch: dict[str, jax.Array]) -> dict:
        logits = self.logits(variables, latent)
        bad = batch["mask"] & ~jnp.isfinite(logits).all(axis=-1)
        counts = correct_counts(logits, batch["label"], batch["mask"], by_class=True)
        return {**counts, "bad": bad.sum(dtype=jnp.int32)}


@functools.lru_cache(maxsize=4)  # a comparison has the same network with several seeds
def _on_mesh(halves: _Halves, mesh: Mesh) -> tuple[Any, Any]:
    """Compile `send` and `receive` for batches that are split over the mesh."""
    whole, rows = replicated(mesh), split(mesh)
    send = jax.jit(halves.send, in_shardings=(whole, rows), out_shardings=(rows, rows, whole))
    return send, jax.jit(halves.receive, in_shardings=(whole, rows), out_shardings=whole)


@functools.partial(jax.jit, static_argnames="halves")
def _encode_alone(variables: Any, image: jax.Array, *, halves: _Halves) -> tuple[jax.Array, Affine | None]:
    return halves.encode(variables, image)[1:]


@functools.partial(jax.jit, static_argnames="halves")
def _logits_alone(variables: Any, latent: jax.Array, *, halves: _Halves) -> jax.Array:
    return halves.logits(variables, latent)


def _local_rows(array: jax.Array) -> np.ndarray:
    """Return the rows of a split array that are on this host."""
    if jax.process_count() == 1:
        return jax.device_get(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _integers(counts: Mapping[str, jax.Array]) -> dict[str, Any]:
    return {key: int(value) if np.ndim(value) == 0 else value for key, value in jax.device_get(counts).items()}
