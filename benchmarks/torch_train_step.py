"""PyTorch's side of `benchmarks/train_step.py`: the stage of `torch_reference.py`, eager or compiled."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks.torch_reference import Stage1

KINDS = {"eager": torch.contiguous_format, "compiled": torch.channels_last}


class TorchStep:
    """Stage 1 in PyTorch, a step at a time on images that lie on the device.

    Args:
        kind: "eager": NCHW, one kernel after the other. "compiled": channels_last, and the step as a whole given to
            `torch.compile`, with Adam as one kernel.
        depth, design, weights: for `torch_reference.Stage1`; `weights` are its further arguments.
        image: [B, h, w, 3] uint8.
        device: "cpu" or "cuda".
        threads: of the CPU.
    """

    def __init__(
        self,
        kind: str,
        depth: int,
        design: Any,
        image: np.ndarray,
        *,
        device: str,
        threads: int,
        teacher: Mapping[str, np.ndarray],
        student: Mapping[str, np.ndarray],
        matched: Sequence[str],
        dtype: str,
        **pixels: Any,
    ):
        torch.set_num_threads(threads)
        if device == "cuda":  # what JAX does there by itself: the fastest convolutions, float32 products as TF32
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self._stage = Stage1(
            depth,
            design,
            teacher=teacher,
            student=student,
            matched=matched,
            dtype=dtype,
            device=device,
            memory_format=KINDS[kind],
            **pixels,
        )
        self._step: Callable[[torch.Tensor], torch.Tensor] = self._stage.step
        if kind == "compiled":
            trained = self._stage.student.bottleneck.parameters()
            self._stage.optimizer = torch.optim.Adam(trained, lr=self._stage.optimizer.defaults["lr"], fused=True)
            # PyTorch breaks its graph at backward(): forward pass and loss are one, their gradient is another.
            self._step = torch.compile(self._stage.step)
        self._image = self._stage.put(image)
        self._device = device

    @property
    def trained(self) -> int:
        """How many parameters the stage trains."""
        return self._stage.trained

    def run(self) -> torch.Tensor:
        """Give one step to the device; the loss before it."""
        return self._step(self._image)

    def wait(self) -> None:
        """Until the device is at rest."""
        if self._device == "cuda":
            torch.cuda.synchronize()


def torch_device(jax_backend: str) -> str:
    """Return the device that PyTorch has to compute on for a fair comparison, or "" where it has none."""
    if jax_backend != "gpu":
        return "cpu"
    return "cuda" if torch.cuda.is_available() else ""
