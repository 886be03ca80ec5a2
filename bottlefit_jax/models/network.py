"""The network: a backbone's parts in sequence, or a bottleneck in place of the first of them.

A student keeps the parts after the cut, so a parameter of its tail has the same path as in the teacher.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.backbone import Part, Spec, parts_of
from bottlefit_jax.models.bottleneck import Bottleneck, ConvStack, Quantizer
from bottlefit_jax.models.density import FactorizedDensity, noisy, rounded
from bottlefit_jax.models.designs import IMAGE, Design, Size, build_design, cut_of, length_after

SIDE_WEIGHT = 0.4  # of a side branch's loss, as in Inception's paper and torchvision's references


class AuxiliaryHead(NamedTuple):
    """A classifier that learns beside the last one.

    Attributes:
        part: its name among the parts.
        feature: the name of its logits `[B, classes]` among the features, which have them while it trains.
        weight: factor of its loss; the last classifier's has 1.
    """

    part: str
    feature: str
    weight: float


class Network(nn.Module):
    """A teacher, or with a bottleneck a student. `models.create` creates it.

    `apply(variables, images, train=False) -> (logits, features)`: images `[B, h, w, 3]`, normalised float; logits
    `[B, classes]` float32; features a dictionary of `[B, h', w', c]` tensors under the parts' names. A student's
    also has `latent` (the encoder's output, not quantised) and `decoded`, which is there again under the name of the
    cut, and `exit_logits` where it has an early exit. `train` is True, False, or the names of those parts that run in
    training mode.

    A student with `steps` is trained for rates: each image gets one of these steps, in units of the latent, from the
    random stream `steps`. While its part `density` trains, the latent gets noise of the step's width, and the features
    have `bits` and `step`, both [B]. While the decoder trains without it, the latent is rounded as a codec rounds it.
    """

    spec: Spec
    num_classes: int = 1000
    bottleneck: Bottleneck | None = None
    options: tuple[tuple[str, Any], ...] = ()
    dtype: Any = jnp.float32
    steps: tuple[float, ...] = ()

    def setup(self) -> None:
        """Create the modules of this network's parts."""
        if self.bottleneck is not None:
            design = self.design
            self.encoder = ConvStack(design.encoder, self.dtype)
            if self.bottleneck.bits is not None:
                self.quantizer = Quantizer(self.bottleneck.bits, self.bottleneck.per, self.bottleneck.range == "static")
            self.decoder = ConvStack(design.decoder, self.dtype)
            if self.steps:
                self.density = FactorizedDensity(self.bottleneck.channels)
            if design.early_exit is not None:
                self.exit = design.early_exit(self.num_classes, self.dtype)
        for part in (*self._front(), *self._tail()):
            if part.make is not None:
                setattr(self, part.name, part.make())

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts, in order."""
        tail = tuple(part.name for part in self._tail())
        return tail if self.bottleneck is None else (*self.device_parts, "decoder", *tail)

    @property
    def training_parts(self) -> tuple[str, ...]:
        """The names of the parts that only training has."""
        return ("density",) if self.steps else ()

    @property
    def auxiliary_heads(self) -> tuple[AuxiliaryHead, ...]:
        """The classifiers beside the last one: a teacher's side branches, a student's early exit."""
        heads = [AuxiliaryHead(part.name, "aux_logits", SIDE_WEIGHT) for part in self._tail() if part.side]
        if self.bottleneck is not None and self.design.early_exit:
            heads.append(AuxiliaryHead("exit", "exit_logits", 1.0))  # one network serves both, so both weigh the same
        return tuple(heads)

    @property
    def device_parts(self) -> tuple[str, ...]:
        """The names of a student's parts that run on the device, in order."""
        early_exit = () if self.design.early_exit is None else ("exit",)
        return (*(part.name for part in self._front()), "encoder", *early_exit)

    @property
    def cut(self) -> str | None:
        """The feature that a student's decoder reproduces; None in a teacher."""
        own = self.bottleneck
        return None if own is None else own.cut or cut_of(own.design) or self.spec.cut

    @property
    def paces(self) -> dict[str, float]:
        """Factors of the learning rate other than 1, by the path of the parameter."""
        return {} if self.bottleneck is None else self.design.paces

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The teacher's spatial features, in order; each can be the cut."""
        return tuple(part.name for part in self.backbone() if part.channels)

    @property
    def matched(self) -> tuple[str, ...]:
        """The features that stage 1 matches: for a student its cut, unless that is the image, and those after it."""
        if self.cut is None:
            return self.spec.matched
        names = self.feature_names
        behind = (name for name in self.spec.matched if names.index(name) > names.index(self.cut))
        return tuple(behind) if self.cut == IMAGE else (self.cut, *behind)

    @property
    def cut_channels(self) -> int:
        """Channels of a student's feature at the cut."""
        return next(part.channels for part in self.backbone() if part.name == self.cut)

    @property
    def design(self) -> Design:
        """The layers of a student's encoder and decoder."""
        assert self.bottleneck is not None
        rows = self.spec.image_size
        return build_design(
            self.bottleneck.design,
            family=self.spec.family,
            version=self.bottleneck.version,
            channels=self.bottleneck.channels,
            hidden=self.bottleneck.hidden,
            cut_channels=self.cut_channels,
            cut_rows=self.feature_size((rows, rows))[0],
            image_rows=rows,
        )

    def feature_size(self, image_size: Size) -> Size:
        """Return (h, w) of a student's feature at the cut; see `latent_size`."""
        sizes = self._sizes(image_size)
        assert self.cut is not None
        return sizes[self.cut]

    def latent_size(self, image_size: Size) -> Size:
        """Return (h, w) of a student's latent.

        Args:
            image_size: (h, w) of the images, pixels.

        Raises:
            UserError: the images are too small for the backbone or for the bottleneck.
        """
        halves = self.design
        feature_size = self.feature_size(image_size)
        start = feature_size if halves.after_cut else image_size
        h, w = (length_after(halves.encoder, n) for n in start)
        if min(h, w) < 1:
            raise UserError(
                f"images of {image_size[0]} × {image_size[1]} are too small for this bottleneck of {self.spec.name}: "
                "nothing is left of the latent"
            )
        return h, w

    def __call__(self, images: jax.Array, train: bool | Collection[str] = False) -> tuple[jax.Array, dict]:
        """Return (logits, features) of images.

        Args:
            images: `[B, h, w, 3]` float, normalised.
            train: True, False, or the names of the parts that run in training mode.
        """
        active = self._active(train)
        size = _image(images)
        self._sizes(size)
        if self.bottleneck is None:
            return self._run(self._tail(), images.astype(self.dtype), {}, active)
        latent = self.encode(images, train)
        beside = {} if self.design.early_exit is None else {"exit_logits": self.exit(latent, "exit" in active)}
        received = latent
        training = not active.isdisjoint(("encoder", "decoder"))
        if self.steps and (training or self.is_initializing()):
            received, measured = self._sent(latent, learning="density" in active or self.is_initializing())
            beside |= measured
        elif self.bottleneck.bits is not None:
            if not training or self.bottleneck.quantize_training:
                received = self.quantizer(latent, training)
            elif self.is_initializing():
                self.quantizer(latent)
        logits, features = self._decode(received, latent, active, size)
        return logits, {**features, **beside}

    def _sent(self, latent: jax.Array, *, learning: bool) -> tuple[jax.Array, dict]:
        """Return what arrives of a latent at steps drawn for each image, and, where the density learns, its bits."""
        wide, key = latent.astype(jnp.float32), self.make_rng("steps")
        step = jax.random.choice(key, jnp.asarray(self.steps, jnp.float32), (len(wide),))
        if not learning:
            return rounded(wide, step).astype(latent.dtype), {}
        received = noisy(wide, step, jax.random.fold_in(key, 1))
        return received.astype(latent.dtype), {"bits": self.density(received, step), "step": step}

    def encode(self, images: jax.Array, train: bool | Collection[str] = False) -> jax.Array:
        """Return a student's latent `[B, h, w, c]`, not quantised.

        Args:
            images: `[B, H, W, 3]` float, normalised.
            train: as in a call of the module.
        """
        self._student_only("encode")
        self.latent_size(_image(images))
        active = self._active(train)
        x, _ = self._run(self._front(), images.astype(self.dtype), {}, active)
        return self.encoder(x, "encoder" in active)

    def device_outputs(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """Return what the device computes of images `[B, H, W, 3]`: the latent, and an early exit's logits."""
        latent = self.encode(images)
        return (latent,) if self.design.early_exit is None else (latent, self.exit(latent))

    def decode(
        self, latent: jax.Array, train: bool | Collection[str] = False, image_size: Size | None = None
    ) -> tuple[jax.Array, dict]:
        """Return a student's (logits, features) of a latent.

        Images of several sizes have latents of one size, but the feature at the cut depends on the image's.

        Args:
            latent: `[B, h, w, c]`, dequantised.
            train: as in a call of the module.
            image_size: (h, w) of the images, pixels. Without it the bottleneck's `image_size` is taken, then the
                model's usual size, and where that gives latents of another size, the one with the largest
                power-of-two factor of those that fit.
        """
        self._student_only("decode")
        if image_size is None:
            image_size = self._natural_size(_image(latent))
        return self._decode(latent, latent, self._active(train), image_size)

    def _student_only(self, method: str) -> None:
        if self.bottleneck is None:
            raise UserError(f"{self.spec.name} was created without a bottleneck, so it has no method {method!r}")

    def _decode(self, received: jax.Array, latent: jax.Array, active: frozenset, size: Size) -> tuple[jax.Array, dict]:
        decoded = self.decoder(received, "decoder" in active, self.feature_size(size))
        return self._run(self._tail(), decoded, {"latent": latent, "decoded": decoded, self.cut: decoded}, active)

    def _run(self, parts: tuple[Part, ...], x: jax.Array, features: dict, active: frozenset) -> tuple[jax.Array, dict]:
        """Run these parts of the backbone on `x`, and return the result and all features."""
        for part in parts:
            if part.side is not None:
                if part.name in active or self.is_initializing():
                    out = getattr(self, part.name)(features[part.side], part.name in active)
                    features.update({"aux_logits": out} if part.name in active else {})
                continue
            if part.function is not None:
                x = part.function(x)
            if part.make is not None:
                x = getattr(self, part.name)(x, part.name in active)
            if part.channels:
                features[part.name] = x
        return x, features

    def _active(self, train: bool | Collection[str]) -> frozenset:
        """Return the names of the parts in training mode."""
        if isinstance(train, bool):
            return frozenset(self.parts if train else ())
        wrong = [train] if isinstance(train, str) else sorted(set(train) - {*self.parts, *self.training_parts})
        if wrong:
            raise UserError(
                f"train={wrong[0]!r} must be True, False or a collection of these parts: {', '.join(self.parts)}"
            )
        return frozenset(train)

    def backbone(self) -> tuple[Part, ...]:
        """Return all parts of the teacher, in order; for a student that is cut before them, behind the image."""
        parts = parts_of(self.spec, self.num_classes, self.dtype, self.options)
        return (Part(IMAGE, channels=3), *parts) if self.cut == IMAGE else parts

    def _front(self) -> tuple[Part, ...]:
        """Return the backbone's parts up to the cut, if a student's device runs them; else ()."""
        if self.bottleneck is None or not self.design.after_cut:
            return ()
        parts = self.backbone()
        stop = [part.name for part in parts].index(str(self.cut)) + 1
        return tuple(part for part in parts[:stop] if part.side is None)

    def _tail(self) -> tuple[Part, ...]:
        """Return the backbone's parts; for a student those after the cut, without side branches."""
        parts = self.backbone()
        if self.bottleneck is None:
            return parts
        start = [part.name for part in parts].index(str(self.cut)) + 1
        return tuple(part for part in parts[start:] if part.side is None)

    def _sizes(self, image_size: Size) -> dict[str, Size]:
        """Return (h, w) of every spatial feature of the teacher; raise UserError where nothing is left of one."""
        sizes, (h, w) = {}, image_size
        for part in self.backbone():
            if not part.channels:
                continue
            h, w = part.length(h), part.length(w)
            if min(h, w) < 1:
                raise UserError(
                    f"images of {image_size[0]} × {image_size[1]} are too small for {self.spec.name}: "
                    f"nothing is left at {part.name}; give at least {self._smallest()} × {self._smallest()}"
                )
            sizes[part.name] = (h, w)
        return sizes

    def _smallest(self) -> int:
        """Return the side of the smallest square image that leaves a pixel at every part."""
        n = 1
        for part in reversed([part for part in self.backbone() if part.channels]):
            kernel, stride, padding = part.window
            n = max(1, (n - 1) * stride + kernel - 2 * padding)
        return n

    def _natural_size(self, latent_size: Size) -> Size:
        """Return the image size to take for a latent of this size; `decode` says which."""
        assert self.bottleneck is not None
        usual = self.bottleneck.image_size or (self.spec.image_size, self.spec.image_size)
        if self.latent_size(usual) == latent_size:
            return usual
        front, encoder = self._front(), self.design.encoder

        def rows(n: int) -> int:
            for part in front:
                n = part.length(n)
            return length_after(encoder, n)

        def image_length(length: int) -> int:
            candidates = range(1, 512 * length + 1)  # rows() never falls from one to the next
            first, stop = (bisect(candidates, length, key=rows) for bisect in (bisect_left, bisect_right))
            if first == stop:
                raise UserError(f"no image gives {self.spec.name} a latent of {latent_size[0]} × {latent_size[1]}")
            return max(candidates[first:stop], key=lambda n: (n & -n, n))

        return image_length(latent_size[0]), image_length(latent_size[1])


def _image(x: jax.Array) -> Size:
    """Return (h, w) of an NHWC tensor."""
    if x.ndim != 4:
        raise UserError(f"the input has shape {tuple(x.shape)}; it must be [batch, height, width, channels]")
    return int(x.shape[1]), int(x.shape[2])
