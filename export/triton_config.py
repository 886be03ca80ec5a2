"""The config.pbtxt of each model of a Triton repository: ModelConfig messages as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.protocol.names import (
    FORMAT,
    HEAD,
    ID_DIGITS,
    IDENTITY,
    INPUT,
    OUTPUT,
    PAYLOAD,
    PAYLOAD_SUFFIX,
    PROBABILITIES,
    RATES,
    TAIL,
)
from export.triton_places import DECODE_SUFFIX

LABELS = "labels.txt"
ANSWERS = (OUTPUT, PROBABILITIES, IDENTITY)


@dataclass(frozen=True)
class ModelConfig:
    """A config.pbtxt in two parts, of which the second may be changed by hand.

    Attributes:
        tensors: inputs and outputs, and what else all versions of a model must have alike.
        before: what comes before `tensors`.
        after: what comes after them.
    """

    before: str
    tensors: str
    after: str

    @property
    def text(self) -> str:
        """The content of the file."""
        return self.before + self.tensors + self.after


def tail_config(bundle: Bundle, *, max_batch_size: int, delay_us: int) -> ModelConfig:
    """Return the config of the tail: latent -> logits, probabilities, identity.

    Args:
        bundle: has the tail.
        max_batch_size: images that Triton runs at once.
        delay_us: microseconds that a request may wait for others although an instance is idle.
    """
    kind = 'platform: "onnxruntime_onnx"\nbackend: "onnxruntime"'
    return ModelConfig(
        f"{_header(bundle.manifest.name, kind, max_batch_size)}version_policy {{ all {{ }} }}\n",
        _tensors("input", [_latent(bundle)]) + _tensors("output", _answers(bundle)),
        _batching(max_batch_size, delay_us) + _parameters(bundle, {TAIL: bundle.manifest.tail.id}),
    )


def decode_config(bundle: Bundle, rates: Rates, *, max_batch_size: int, delay_us: int) -> ModelConfig:
    """Return the config of the model that decodes: payload -> latent. Arguments as in `tail_config`."""
    return ModelConfig(
        _header(bundle.manifest.name + DECODE_SUFFIX, 'backend: "python"', max_batch_size),
        _tensors("input", [_PAYLOAD]) + _tensors("output", [_latent(bundle)]),
        "instance_group [ { kind: KIND_CPU } ]\n"
        + _batching(max_batch_size, delay_us)
        + _payload_parameters(bundle, rates),
    )


def payload_config(bundle: Bundle, rates: Rates, *, max_batch_size: int) -> ModelConfig:
    """Return the config of the ensemble of the two: payload -> logits, probabilities, identity."""
    name = bundle.manifest.name
    steps = [_step(name + DECODE_SUFFIX, [PAYLOAD], [INPUT]), _step(name, [INPUT], ANSWERS)]
    return ModelConfig(
        _header(name + PAYLOAD_SUFFIX, 'platform: "ensemble"', max_batch_size),
        _tensors("input", [_PAYLOAD])
        + _tensors("output", _answers(bundle))
        + "ensemble_scheduling {\n  step [\n"
        + ",\n".join(steps)
        + "\n  ]\n}\n",
        _payload_parameters(bundle, rates),
    )


def _header(name: str, kind: str, max_batch_size: int) -> str:
    return f'name: "{name}"\n{kind}\nmax_batch_size: {max_batch_size}\n'


# A tensor: its name, type and dims, and whether it has labels. The batch is implicit: dims begin after it.
_Tensor = tuple[str, str, tuple[int, ...], bool]
_PAYLOAD: _Tensor = (PAYLOAD, "TYPE_STRING", (1,), False)


def _latent(bundle: Bundle) -> _Tensor:
    return INPUT, "TYPE_UINT8", bundle.manifest.latent.shape, False


def _answers(bundle: Bundle) -> list[_Tensor]:
    classes, labelled = (bundle.manifest.model.num_classes,), bool(bundle.manifest.labels)
    return [
        (OUTPUT, "TYPE_FP32", classes, labelled),
        (PROBABILITIES, "TYPE_FP32", classes, labelled),
        (IDENTITY, "TYPE_UINT8", (ID_DIGITS,), False),
    ]


def _tensors(kind: str, tensors: list[_Tensor]) -> str:
    blocks = []
    for name, data_type, dims, labelled in tensors:
        labels = f'\n    label_filename: "{LABELS}"' if labelled else ""
        sides = ", ".join(map(str, dims))
        blocks.append(f'  {{\n    name: "{name}"\n    data_type: {data_type}\n    dims: [ {sides} ]{labels}\n  }}')
    return f"{kind} [\n" + ",\n".join(blocks) + "\n]\n"


def _step(model: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """Return a step of an ensemble; each tensor has the same name everywhere. -1 is the newest version."""
    maps = [f'      input_map {{ key: "{name}" value: "{name}" }}' for name in inputs]
    maps += [f'      output_map {{ key: "{name}" value: "{name}" }}' for name in outputs]
    lines = [f'      model_name: "{model}"', "      model_version: -1", *maps]
    return "    {\n" + "\n".join(lines) + "\n    }"


def _batching(max_batch_size: int, delay_us: int) -> str:
    """Return how requests are batched.

    There is no queue policy on purpose. With any limit, of size or time, Triton 2.51 lets some requests wait 500 ms for
    no reason, at worst every tenth with one instance. What bounds the queue is that a device's deadline cancels its
    call, and Triton drops a request that was cancelled.
    """
    preferred = sorted({max(1, max_batch_size // part) for part in (4, 2, 1)})
    return f"""\
dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, preferred))} ]
  max_queue_delay_microseconds: {delay_us}
}}
"""


def _parameters(bundle: Bundle, values: dict[str, str]) -> str:
    """Return the parameters by which a device sees whether it fits the model: the head's id, the format, and others."""
    values = {HEAD: bundle.manifest.head.id, FORMAT: str(bundle.manifest.format)} | values
    entries = (f'  key: "{key}"\n  value {{ string_value: "{value}" }}\n' for key, value in values.items())
    return "".join(f"parameters {{\n{entry}}}\n" for entry in entries)


def _payload_parameters(bundle: Bundle, rates: Rates) -> str:
    """Return the parameters of a model that takes payloads. The tail's id is not one: these models have no tail."""
    return _parameters(bundle, {PAYLOAD: str(wire.VERSION), RATES: f"{rates.key:08x}"})
