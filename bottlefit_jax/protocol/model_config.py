"""A server's ModelConfig, checked against the bundle on the device."""

from collections.abc import Iterator
from typing import Any

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import INPUT, OUTPUT
from bottlefit_jax.protocol.response import printable
from bottlefit_jax.protocol.stubs import config_pb

_TYPES: Any = config_pb.__dict__["DataType"]


def head_of(config: Any) -> str:
    """The head's id in a server's ModelConfig; empty where it has none."""
    return config.parameters["head"].string_value if "head" in config.parameters else ""


def check_config(config: Any, manifest: Manifest, server: str) -> None:
    """Hold a server's ModelConfig to the bundle.

    Raises:
        UserError: the tail belongs to another head, or takes or gives something else.
    """
    head = head_of(config)
    if head != manifest.head.id:
        belongs = f"belongs to another head, {printable(head)[:12]}…" if head else "does not say which head it is for"
        raise UserError(
            f"the tail on {server} {belongs}; this bundle's is {manifest.head.id[:12]}…: "
            f"serve the bundle that the head is from"
        )
    problems = list(_problems(config, manifest))
    if problems:
        raise UserError(f"the tail {manifest.name} on {server} does not fit this bundle: {'; '.join(problems)}")


def _problems(config: Any, manifest: Manifest) -> Iterator[str]:
    """A batch is implied where max_batch_size is above 0; elsewhere the first dimension is it."""
    wanted = (
        ("input", config.input, INPUT, _TYPES.TYPE_UINT8, list(manifest.latent.shape)),
        ("output", config.output, OUTPUT, _TYPES.TYPE_FP32, [manifest.model.num_classes]),
    )
    for kind, found, name, data_type, shape in wanted:
        said = [(one.name, one.data_type, list(one.dims)) for one in found if kind == "input" or one.name == name]
        batches = [[]] if config.max_batch_size > 0 else [[-1], [1]]
        if not any(said == [(name, data_type, batch + shape)] for batch in batches):
            told = ", ".join(f"{printable(one)} {_TYPES.Name(dtype)} {dims}" for one, dtype, dims in said) or "missing"
            yield f"its {kind} is {told} instead of {name} {_TYPES.Name(data_type)} {shape}"
