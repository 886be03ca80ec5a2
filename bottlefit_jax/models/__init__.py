"""Backbones and their students. `create` makes one by torchvision's name."""

from typing import Any

import jax.numpy as jnp

from bottlefit_jax.errors import UserError
from bottlefit_jax.models import densenet, efficientnet, inception, mobilenet, resnet
from bottlefit_jax.models.backbone import Spec
from bottlefit_jax.models.bottleneck import Bottleneck, is_integer
from bottlefit_jax.models.designs import cut_of
from bottlefit_jax.models.inheritance import with_body_of, with_stem_of, with_tail_of
from bottlefit_jax.models.network import Network
from bottlefit_jax.models.normalise import normalise
from bottlefit_jax.models.norms import folded_norms, with_measured_norms

# the name that `create` takes -> the backbone
MODELS: dict[str, Spec] = {
    spec.name: spec for family in (resnet, densenet, mobilenet, inception, efficientnet) for spec in family.SPECS
}

__all__ = [
    "MODELS",
    "Bottleneck",
    "Network",
    "Spec",
    "create",
    "find_spec",
    "folded_norms",
    "normalise",
    "with_body_of",
    "with_measured_norms",
    "with_stem_of",
    "with_tail_of",
]


def create(
    name: str,
    *,
    num_classes: int = 1000,
    bottleneck: dict[str, Any] | None = None,
    dtype: Any = jnp.float32,
    **options: Any,
) -> Network:
    """Create a classifier, or with a bottleneck its student.

    Args:
        name: a key of `MODELS`: `resnet152`, `densenet169`, `mobilenet_v2`, `inception_v3`,
            `efficientnet_lite0`, …
        num_classes: outputs of the classifier.
        bottleneck: its keys are the attributes of `Bottleneck`; None creates the teacher.
        dtype: the type that it computes in; parameters, batch statistics and logits are float32.
        **options: `width` of a ResNet, `padding` of a MobileNetV2, `aux_logits` and `transform_input` of an
            Inception v3.

    Returns:
        A Flax module, equal to any other created with the same arguments; `Network` describes how to call it.

    Raises:
        UserError: the model or an option is unknown, a value is invalid, or the bottleneck does not fit the model.
    """
    spec = find_spec(name)
    if not is_integer(num_classes) or num_classes < 1:
        raise UserError(f"num_classes={num_classes!r} must be an integer from 1 up")
    try:
        computing = jnp.dtype(dtype)
    except TypeError:
        computing = jnp.dtype(int)
    if not jnp.issubdtype(computing, jnp.floating):
        raise UserError(f"dtype={dtype!r} must be a floating type such as 'float32' or 'bfloat16'")
    plan = None if bottleneck is None else Bottleneck.parse(bottleneck, spec.family)
    network = Network(spec, int(num_classes), plan, _options(spec, options), computing)
    if plan is not None:
        _check_cut(network)
    return network


def find_spec(name: str) -> Spec:
    """Return the declaration of a model, or raise UserError for an unknown name."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name]


def _options(spec: Spec, given: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return all options of the model, with defaults for those that are not given."""
    for key, value in given.items():
        if key not in spec.options:
            known = ", ".join(["num_classes", "bottleneck", "dtype", *spec.options])
            raise UserError(f"unknown option {key}={value!r} for {spec.name}; the options are {known}")
        allowed = spec.options[key][1]
        if allowed is int:
            if not is_integer(value) or value < 1:
                raise UserError(f"{key}={value!r} must be an integer from 1 up")
        elif value not in allowed:
            raise UserError(f"{key}={value!r} must be one of {', '.join(map(repr, allowed))}")
    return tuple((key, given.get(key, default)) for key, (default, _) in spec.options.items())


def _check_cut(network: Network) -> None:
    """Raise UserError where the cut is not a spatial feature, or an image size leaves nothing of some feature."""
    names = network.feature_names
    if network.cut not in names:
        raise UserError(
            f"bottleneck cut={network.cut!r} must be one of {network.spec.name}'s features: {', '.join(names)}"
        )
    assert network.bottleneck is not None
    if (own := cut_of(network.bottleneck.design)) and network.cut != own:
        raise UserError(
            f"bottleneck cut={network.cut!r} must be {own!r}, which is all that the design "
            f"{network.bottleneck.design!r} restores"
        )
    if not network.design.encoder and network.bottleneck.channels != (sent := network.cut_channels):
        raise UserError(
            f"bottleneck channels={network.bottleneck.channels!r} must be {sent}: a {network.bottleneck.design} sends "
            f"{network.cut} of {network.spec.name} as it is"
        )
    if size := network.bottleneck.image_size:
        network.latent_size(size)
