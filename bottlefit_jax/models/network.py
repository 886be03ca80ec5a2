"""A classifier as a row of named parts, and the same classifier with a bottleneck in its beginning.

A part bears torchvision's name of the feature that it puts out, and its parameters lie under that name, then
under torchvision's inner names. A student keeps the parts after the cut, so a parameter of its tail has the
path that it has in the teacher.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bottlefit_jax.errors import UserError
from bottlefit_jax.models.bottleneck import Bottleneck, ConvStack, Quantizer
from bottlefit_jax.models.designs import Design, Size, build_design, length_after


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a backbone: first `function`, then the module that `make` makes; either may be absent.

    Args:
        name: torchvision's name of the feature.
        make: makes a module that is called with `(x, train)`.
        function: what happens to the input before, without parameters.
        channels: of the output; 0 where the output is no image any more (it cannot be the cut).
        window: kernel, stride and padding that decide the output's size.
        side: the feature that a side branch starts from; it runs in training only, and its output is
            `features['aux_logits']`.
    """

    name: str
    make: Callable[[], nn.Module] | None = None
    function: Callable[[jax.Array], jax.Array] | None = None
    channels: int = 0
    window: tuple[int, int, int] = (1, 1, 0)
    side: str | None = None

    def length(self, n: int) -> int:
        """How many rows come out when n go in."""
        kernel, stride, padding = self.window
        return (n + 2 * padding - kernel) // stride + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Spec:
    """A backbone that `create` knows.

    Args:
        name: as torchvision spells it.
        parts: `(num_classes, dtype, **options) -> tuple of Part`.
        family: which bottleneck designs it has, a key of `designs.DESIGNS`.
        cut: the feature at which a student is cut unless the bottleneck says otherwise.
        matched: the features that stage 1 matches.
        options: name -> (default, allowed values or type).
        image_size: the size it was designed for.
    """

    name: str
    parts: Callable[..., tuple[Part, ...]]
    family: str
    cut: str
    matched: tuple[str, ...]
    options: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    image_size: int = 224

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Network(nn.Module):
    """A teacher, or with a bottleneck a student. Make it with `models.create`.

    `apply(variables, images, train=False) -> (logits, features)`: images `[B, h, w, 3]`, normalised float; logits
    `[B, classes]` float32; features a dictionary of `[B, h', w', c]` tensors under the parts' names. A student's
    has `latent` (as the encoder made it, before any quantiser) and `decoded` too, `decoded` again under the name of the
    cut, and `exit_logits` where it has an early exit. `train` is True, False, or the names of those parts that run in
    training mode.
    """

    spec: Spec
    num_classes: int = 1000
    bottleneck: Bottleneck | None = None
    options: tuple[tuple[str, Any], ...] = ()
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Make the modules of this network's parts."""
        if self.bottleneck is not None:
            design = self.design
            self.encoder = ConvStack(design.encoder, self.dtype)
            if self.bottleneck.bits is not None:
                self.quantizer = Quantizer(self.bottleneck.bits, self.bottleneck.per, self.bottleneck.range == "static")
            self.decoder = ConvStack(design.decoder, self.dtype)
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
    def device_parts(self) -> tuple[str, ...]:
        """The names of a student's parts that run on the device, in order."""
        early_exit = () if self.design.early_exit is None else ("exit",)
        return (*(part.name for part in self._front()), "encoder", *early_exit)

    @property
    def cut(self) -> str | None:
        """The feature that a student's decoder stands in for; None in a teacher."""
        return None if self.bottleneck is None else self.bottleneck.cut or self.spec.cut

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The teacher's features that are images, in order; each can be the cut."""
        return tuple(part.name for part in self.backbone() if part.channels)

    @property
    def matched(self) -> tuple[str, ...]:
        """The features that stage 1 matches: a student's cut and those after it."""
        if self.cut is None:
            return self.spec.matched
        names = self.feature_names
        return (self.cut, *(name for name in self.spec.matched if names.index(name) > names.index(self.cut)))

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
        """(h, w) of a student's feature at the cut for images of this size, or a UserError if they are too small."""
        sizes = self._sizes(image_size)
        assert self.cut is not None
        return sizes[self.cut]

    def latent_size(self, image_size: Size) -> Size:
        """(h, w) of a student's latent for images of this size."""
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
        """Images `[B, h, w, 3]` to (logits, features)."""
        active = self._active(train)
        size = _image(images)
        self._sizes(size)
        if self.bottleneck is None:
            return self._run(self._tail(), images.astype(self.dtype), {}, active)
        latent = self.encode(images, train)
        beside = {} if self.design.early_exit is None else {"exit_logits": self.exit(latent, "exit" in active)}
        received = latent
        if self.bottleneck.bits is not None:
            training = not active.isdisjoint(("encoder", "decoder"))
            if not training or self.bottleneck.quantize_training:
                received = self.quantizer(latent, training)
            elif self.is_initializing():
                self.quantizer(latent)
        logits, features = self._decode(received, latent, active, size)
        return logits, {**features, **beside}

    def encode(self, images: jax.Array, train: bool | Collection[str] = False) -> jax.Array:
        """Images `[B, H, W, 3]` to the latent `[B, h, w, c]`, not quantised. A student's only."""
        self._student_only("encode")
        self.latent_size(_image(images))
        active = self._active(train)
        x, _ = self._run(self._front(), images.astype(self.dtype), {}, active)
        return self.encoder(x, "encoder" in active)

    def device_outputs(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """What a student's device computes of images `[B, H, W, 3]`: the latent, and the logits of an early exit."""
        latent = self.encode(images)
        return (latent,) if self.design.early_exit is None else (latent, self.exit(latent))

    def decode(
        self, latent: jax.Array, train: bool | Collection[str] = False, image_size: Size | None = None
    ) -> tuple[jax.Array, dict]:
        """A (dequantised) latent `[B, h, w, c]` to (logits, features). A student's only.

        Images of several sizes have latents of one size. Which it was says `image_size` (h, w) here, or else in the
        bottleneck; or else it was the model's usual size or, failing that, the roundest one.
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
        """These parts of the backbone, from `x` on."""
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
        """The names of the parts in training mode."""
        if isinstance(train, bool):
            return frozenset(self.parts if train else ())
        wrong = [train] if isinstance(train, str) else sorted(set(train) - set(self.parts))
        if wrong:
            raise UserError(
                f"train={wrong[0]!r} must be True, False or a collection of these parts: {', '.join(self.parts)}"
            )
        return frozenset(train)

    def backbone(self) -> tuple[Part, ...]:
        """All parts of the teacher, in order."""
        return self.spec.parts(self.num_classes, self.dtype, **dict(self.options))

    def _front(self) -> tuple[Part, ...]:
        """The backbone's parts up to the cut, where a student's device runs them too; () otherwise."""
        if self.bottleneck is None or not self.design.after_cut:
            return ()
        parts = self.backbone()
        stop = [part.name for part in parts].index(str(self.cut)) + 1
        return tuple(part for part in parts[:stop] if part.side is None)

    def _tail(self) -> tuple[Part, ...]:
        """The backbone's parts, or a student's share of them: what follows the cut, without side branches."""
        parts = self.backbone()
        if self.bottleneck is None:
            return parts
        start = [part.name for part in parts].index(str(self.cut)) + 1
        return tuple(part for part in parts[start:] if part.side is None)

    def _sizes(self, image_size: Size) -> dict[str, Size]:
        """(h, w) of every spatial feature of the teacher, or a UserError where nothing remains of the image."""
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
        """The smallest square image that leaves a pixel at every part."""
        n = 1
        for part in reversed([part for part in self.backbone() if part.channels]):
            kernel, stride, padding = part.window
            n = max(1, (n - 1) * stride + kernel - 2 * padding)
        return n

    def _natural_size(self, latent_size: Size) -> Size:
        """The image size to take for a latent of this size: the one given, the usual one, or the roundest."""
        assert self.bottleneck is not None
        usual = self.bottleneck.image_size or (self.spec.image_size, self.spec.image_size)
        if self.latent_size(usual) == latent_size:
            return usual
        halves = self.design

        def rows(n: int) -> int:
            if not halves.after_cut:
                return length_after(halves.encoder, n)
            for part in self._front():
                n = part.length(n)
            return length_after(halves.encoder, n)

        def roundest(length: int) -> int:
            fitting = [n for n in range(1, 512 * length + 1) if rows(n) == length]
            if not fitting:
                raise UserError(f"no image gives {self.spec.name} a latent of {latent_size[0]} × {latent_size[1]}")
            return max(fitting, key=lambda n: (n & -n, n))

        return roundest(latent_size[0]), roundest(latent_size[1])


def _image(x: jax.Array) -> Size:
    """(h, w) of an NHWC tensor."""
    if x.ndim != 4:
        raise UserError(f"a tensor of shape {tuple(x.shape)} was given; [batch, height, width, channels] is right")
    return int(x.shape[1]), int(x.shape[2])
