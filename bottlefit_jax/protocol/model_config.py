"""ModelConfig: made on the server, checked against the bundle on the device."""

from collections.abc import Iterator
from typing import Any

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import FORMAT, HEAD, INPUT, OUTPUT, TAIL
from bottlefit_jax.protocol.stubs import config_pb
from bottlefit_jax.protocol.text import one_line

_TYPES: Any = config_pb.__dict__["DataType"]


def make_config(manifest: Manifest, *, platform: str, backend: str, max_batch: int, delay: float) -> Any:
    """Make the ModelConfig of a tail, with the same content as the config.pbtxt that export/triton.py writes.

    Args:
        manifest: of the tail's bundle.
        platform: such as "onnxruntime_onnx".
        backend: such as "onnxruntime".
        max_batch: images that are run at once.
        delay: seconds that a request may wait for others.
    """
    parameters = {HEAD: manifest.head.id, TAIL: manifest.tail.id, FORMAT: str(manifest.format)}
    return config_pb.ModelConfig(
        name=manifest.name,
        platform=platform,
        backend=backend,
        max_batch_size=max_batch,
        input=[config_pb.ModelInput(name=INPUT, data_type=_TYPES.TYPE_UINT8, dims=manifest.latent.shape)],
        output=[config_pb.ModelOutput(name=OUTPUT, data_type=_TYPES.TYPE_FP32, dims=[manifest.model.num_classes])],
        dynamic_batching=config_pb.ModelDynamicBatching(max_queue_delay_microseconds=round(delay * 1e6)),
        parameters={key: config_pb.ModelParameter(string_value=value) for key, value in parameters.items()},
    )


def head_of(config: Any) -> str:
    """Return the head's id in a server's ModelConfig; empty where it has none."""
    return config.parameters[HEAD].string_value if HEAD in config.parameters else ""


def check_config(config: Any, manifest: Manifest, server: str) -> None:
    """Check that a server's ModelConfig belongs to the bundle's head.

    Args:
        config: a ModelConfig.
        manifest: of the bundle on the device.
        server: HOST:PORT.

    Raises:
        UserError: the tail belongs to another head, or has other inputs or outputs.
    """
    head = head_of(config)
    if head != manifest.head.id:
        belongs = f"belongs to another head, {one_line(head)[:12]}…" if head else "does not say which head it is for"
        raise UserError(
            f"the tail on {server} {belongs}; this bundle's is {manifest.head.id[:12]}…: "
            f"serve the bundle that the head is from"
        )
    problems = list(_problems(config, manifest))
    if problems:
        raise UserError(f"the tail {manifest.name} on {server} does not fit this bundle: {'; '.join(problems)}")


def _problems(config: Any, manifest: Manifest) -> Iterator[str]:
    """Yield a phrase for each tensor that is wrong.

    The batch is implicit where max_batch_size is above 0; otherwise it is the first dimension.
    """
    expected = (
        ("input", config.input, INPUT, _TYPES.TYPE_UINT8, list(manifest.latent.shape)),
        ("output", config.output, OUTPUT, _TYPES.TYPE_FP32, [manifest.model.num_classes]),
    )
    for kind, tensors, name, data_type, shape in expected:
        declared = [
            (tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in tensors
            if kind == "input" or tensor.name == name
        ]
        batches = [[]] if config.max_batch_size > 0 else [[-1], [1]]
        if not any(declared == [(name, data_type, batch + shape)] for batch in batches):
            text = ", ".join(f"{one_line(other)} {_TYPES.Name(dtype)} {dims}" for other, dtype, dims in declared)
            yield f"its {kind} is {text or 'missing'} instead of {name} {_TYPES.Name(data_type)} {shape}"
