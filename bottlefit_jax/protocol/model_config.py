"""ModelConfig: made on the server, checked against the bundle on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bottlefit_jax.bundle import Manifest
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import FORMAT, HEAD, IDENTITY, INPUT, OUTPUT, PAYLOAD, PROBABILITIES, RATES, TAIL
from bottlefit_jax.protocol.stubs import config_pb
from bottlefit_jax.protocol.text import one_line

_TYPES: Any = config_pb.__dict__["DataType"]


@dataclass(frozen=True)
class Capabilities:
    """What a model on a server takes and gives beside raw latents and logits.

    Attributes:
        payload: the version of the payloads that it takes; empty where it takes none.
        rates: the key of the rates that it takes, as hexadecimal digits; empty where it names none.
        probabilities: whether it has that output.
        identity: whether it has that output; such a server may have no parameters in its answers.
    """

    payload: str = ""
    rates: str = ""
    probabilities: bool = False
    identity: bool = False


def make_config(
    manifest: Manifest,
    *,
    platform: str,
    backend: str,
    max_batch: int,
    delay: float,
    rates: Rates | None = None,
) -> Any:
    """Make the ModelConfig of a tail, with the same tensors as the config.pbtxt that export/triton.py writes.

    The input `payload` is not listed, since a device compares the inputs with the one that it knows, and older ones
    know the raw latent alone. The parameters say that payloads are taken.

    Args:
        manifest: of the tail's bundle.
        platform: such as "onnxruntime_onnx".
        backend: such as "onnxruntime".
        max_batch: images that are run at once.
        delay: seconds that a request may wait for others.
        rates: of the bundle; None where it has none.
    """
    classes = [manifest.model.num_classes]
    parameters = {HEAD: manifest.head.id, TAIL: manifest.tail.id, FORMAT: str(manifest.format)}
    if rates is not None:
        parameters |= {PAYLOAD: str(wire.VERSION), RATES: key_of(rates)}
    return config_pb.ModelConfig(
        name=manifest.name,
        platform=platform,
        backend=backend,
        max_batch_size=max_batch,
        input=[config_pb.ModelInput(name=INPUT, data_type=_TYPES.TYPE_UINT8, dims=manifest.latent.shape)],
        output=[
            config_pb.ModelOutput(name=name, data_type=_TYPES.TYPE_FP32, dims=classes)
            for name in (OUTPUT, PROBABILITIES)
        ],
        dynamic_batching=config_pb.ModelDynamicBatching(max_queue_delay_microseconds=round(delay * 1e6)),
        parameters={key: config_pb.ModelParameter(string_value=value) for key, value in parameters.items()},
    )


def key_of(rates: Rates) -> str:
    """Return the key of rates as the parameter RATES has it, 8 hexadecimal digits."""
    return f"{rates.key:08x}"


def head_of(config: Any) -> str:
    """Return the head's id in a server's ModelConfig; empty where it has none."""
    return _parameter(config, HEAD)


def capabilities_of(config: Any) -> Capabilities:
    """Return what a model takes and gives, from its ModelConfig."""
    outputs = {output.name for output in config.output}
    return Capabilities(
        payload=_parameter(config, PAYLOAD),
        rates=_parameter(config, RATES),
        probabilities=PROBABILITIES in outputs,
        identity=IDENTITY in outputs,
    )


def payload_problem(capabilities: Capabilities, rates: Rates, server: str) -> str | None:
    """Return why payloads of these rates are not sent to a server, None where they are.

    Args:
        capabilities: of the model there.
        rates: of the bundle on the device.
        server: HOST:PORT.
    """
    if not capabilities.payload:
        return f"{server} takes no payloads"
    if capabilities.payload != str(wire.VERSION):
        return f"{server} takes payloads of version {one_line(capabilities.payload, 20)}, not {wire.VERSION}"
    if capabilities.rates != key_of(rates):
        theirs = one_line(capabilities.rates, 20) or "unnamed"
        return f"{server} has other rates, {theirs}; this bundle's are {key_of(rates)}"
    return None


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


def _parameter(config: Any, name: str) -> str:
    return config.parameters[name].string_value if name in config.parameters else ""


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
