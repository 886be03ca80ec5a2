"""Which bottleneck a PyTorch file has, and how a file with nothing but a head becomes a whole student.

BottleFit's files hold whole students; what their bottleneck is follows from the arrays, and the quantiser, which has
none, from the configuration saved beside them. Those of head-network-distillation hold the head alone, and the rest
is the teacher's.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bottlefit_jax import models
from bottlefit_jax.convert import torch_names
from bottlefit_jax.convert.weight_sets import without_wrappers
from bottlefit_jax.errors import UserError
from bottlefit_jax.models.designs import DESIGNS, ENCODERS, PARTS, REFERENCE, Layer

ENCODER = re.compile(r"^(?:features\.)?bottleneck\.encoder\.(\d+)\.weight$")
DECODER = re.compile(r"^(?:features\.)?bottleneck\.decoder\.(\d+)\.weight$")
HALVES = re.compile(rf"^(?:features\.)?bottleneck\.(?:{'|'.join(PARTS)})\.")
HEAD = re.compile(r"^(extractor|module_seq)\.(\d+)\.(.+)$")
STEM = 4  # layers of a head's `extractor`; the next three of `module_seq` end the encoder
CUT = 3
DEFAULT_BITS = 8
UNLIKELY = 9973  # a width that marks layers, and that no other layer has


def is_student(arrays: Mapping[str, Any]) -> bool:
    """Whether a state dict has a bottleneck."""
    return any(HALVES.match(key) for key in without_wrappers(arrays))


def is_head(arrays: Mapping[str, Any]) -> bool:
    """Whether a state dict is a head of head-network-distillation."""
    return any(HEAD.match(key) for key in without_wrappers(arrays))


def check_model(name: str, beside: Mapping[str, Any]) -> None:
    """Raise UserError where the checkpoint itself says that it is of another model."""
    said = beside.get("type") or _student_model(beside).get("name")
    said = str(said).removeprefix("custom_")
    if said in models.MODELS and said != name:
        raise UserError(f"the file says that it is of {said}, not {name}: give --model {said}")


def bottleneck_of(name: str, arrays: Mapping[str, np.ndarray], bits: int | None) -> dict[str, Any]:
    """The bottleneck of a student's state dict, as the whole dictionary for `models.create`.

    Args:
        name: the model.
        arrays: PyTorch's keys to arrays.
        bits: of the quantiser.

    Raises:
        UserError: the encoder is none that this model has.
    """
    spec = models.MODELS[name]
    found = ((ENCODER.match(key), np.shape(value)) for key, value in without_wrappers(arrays).items())
    shapes = [shape for _, shape in sorted((int(m[1]), shape) for m, shape in found if m and len(shape) == 4)]
    plans: dict[tuple[int, ...], dict[str, Any]] = {
        _kernels(design.encoder): {"version": version} for version, design in DESIGNS[spec.family].items()
    }
    plans |= {_kernels(encoder): {"design": design} for design, encoder in ENCODERS.items()}
    kernels = tuple(max(shape[2:]) for shape in shapes)
    if kernels not in plans:
        known = "; ".join(f"{_squares(sides)} ({title(plan)})" for sides, plan in plans.items())
        raise UserError(
            f"the encoder in the file has the convolutions {_squares(kernels) or '(none)'}; what can be told of a "
            f"{spec.family} from its file is {known}: is --model {name} right?"
        )
    plan = {"channels": shapes[-1][0], **plans[kernels], "bits": bits, "image_size": spec.image_size}
    plan["hidden"] = _hidden(name, plan, arrays)
    return dataclasses.asdict(models.Bottleneck.parse(plan, spec.family)) | {"image_size": spec.image_size}


def _hidden(name: str, plan: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int | None:
    """The decoder's inner width: that of the first layer which has it; None where the file lacks that layer."""
    layers = models.create(name, bottleneck={**plan, "hidden": UNLIKELY}).design.decoder
    number = next(number for number, layer in enumerate(layers) if layer.width == UNLIKELY)
    found = ((DECODER.match(key), np.shape(value)) for key, value in without_wrappers(arrays).items())
    shape = next((shape for match, shape in found if match and int(match[1]) == number and len(shape) == 4), None)
    return None if shape is None else int(shape[1 if layers[number].kind == "transposed" else 0])


def title(plan: Mapping[str, Any]) -> str:
    """What a person calls a bottleneck: `version 2`, or `design patch`."""
    design = plan.get("design", REFERENCE)
    return f"version {plan['version']}" if design == REFERENCE else f"design {design}"


def bits_of(beside: Mapping[str, Any], given: int | None) -> tuple[int | None, str]:
    """The bits of a student's quantiser, and where they are from.

    Args:
        beside: what the checkpoint has besides weights; BottleFit's `config` names the compressor.
        given: by `--bits`; 0 for none, None where it was not.

    Raises:
        UserError: the file's config wants a number of bits that the quantiser does not have.
    """
    if given is not None:
        return given or None, "by --bits"
    params = _student_model(beside).get("params")
    if not isinstance(params, Mapping):
        return DEFAULT_BITS, "assumed, --bits N says otherwise"
    compressor = params.get("compressor")
    if not compressor:
        return None, "as its config says, --bits 8 puts one in"
    options = compressor.get("params") if isinstance(compressor, Mapping) else None
    bits = options.get("num_bits") if isinstance(options, Mapping) else None
    if not isinstance(bits, int) or not 1 <= bits <= 8:
        raise UserError(
            f"the file's config has the compressor {compressor!r}; here it can be one of 1 to 8 bits, "
            "so say with --bits N which (0: none)"
        )
    return bits, "as its config says"


def whole_student(
    name: str, head: Mapping[str, np.ndarray], tail: Mapping[str, np.ndarray], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The state dict of a student, from a head of head-network-distillation and its teacher.

    Args:
        name: the model.
        head: keys `extractor.N.…` and `module_seq.N.…` to arrays.
        tail: the teacher's state dict, with `num_batches_tracked` or without.
        options: of the teacher.

    Returns:
        The teacher's arrays after the cut and the head's under the names of a bottleneck; keys that are none of a
        head's are kept, for the list of what does not fit.
    """
    front = "features.bottleneck" if models.MODELS[name].family == "densenet" else "bottleneck"
    renamed = {_student_key(key, front): value for key, value in without_wrappers(head).items()}
    plan = bottleneck_of(name, renamed, None)
    wanted = torch_names.keys(name, bottleneck=plan, **options)
    norms = {key.removesuffix(".running_mean") for key in wanted if key.endswith(".running_mean")}
    wanted |= {norm + torch_names.COUNTER for norm in norms}
    return {key: value for key, value in tail.items() if key in wanted} | renamed


def _student_key(key: str, front: str) -> str:
    match = HEAD.match(key)
    if not match:
        return key
    number, rest = int(match[2]), match[3]
    if match[1] == "extractor":
        return f"{front}.encoder.{number}.{rest}" if number < STEM else key
    if number < CUT:
        return f"{front}.encoder.{STEM + number}.{rest}"
    return f"{front}.decoder.{number - CUT}.{rest}"


def _kernels(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The sides of the kernels, in order."""
    return tuple(layer.kernel for layer in layers if layer.kind in ("conv", "depthwise"))


def _squares(sides: Sequence[int]) -> str:
    return ", ".join(f"{side}×{side}" for side in sides)


def _student_model(beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """`models.student_model` of BottleFit's configuration; empty where there is none."""
    found: Any = beside.get("config")
    for key in ("models", "student_model"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
