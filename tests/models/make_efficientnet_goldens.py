"""Writes efficientnet.npz: logits and features of EfficientNet-Lite as PyTorch computes them.

    python -m tests.models.make_efficientnet_goldens

Run on torch 2.14.1 (CPU), torchvision 0.29.1, NumPy 2.4.6 and efficientnet_lite_pytorch 0.1.0 (installed with
--no-deps), whose networks these are. The rules and the content are those of `make_more_goldens.py`; an odd and an even
side make TensorFlow's padding symmetric and asymmetric. Half a minute on two cores.
"""

import json
import pathlib

import numpy as np
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet

from tests.models.make_more_goldens import CHANNELS, draw, measure

OUT = pathlib.Path(__file__).parents[1] / "goldens" / "efficientnet.npz"
SEED = 6000  # of the first model; the next has 10 more
MODELS = {0: (64, 97), 1: (64,), 2: (64,), 3: (64,), 4: (64,)}


def main() -> None:
    """Write the file."""
    models, cases, arrays = {}, {}, {}
    for number, sizes in MODELS.items():
        for size in sizes:
            model, seed = f"efficientnet_lite{number}", SEED + 10 * number
            network = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=size)  # of which padding depends
            models[model] = {"create": {"name": model}, **draw(network, seed)}
            cases[f"{model}_s{size}"], made = measure(network, model, seed, size, run)
            arrays.update({f"{model}_s{size}/{name}": value for name, value in made.items()})
            print(model, size, cases[f"{model}_s{size}"]["errors"]["logits"], flush=True)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}
    manifest = {"made_with": versions, "channels": CHANNELS, "models": models, "cases": cases}
    text = np.frombuffer(json.dumps(manifest, separators=(",", ":")).encode(), np.uint8)
    np.savez_compressed(OUT, manifest=text, **arrays)


def run(network: torch.nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Everything that ours returns too, under our names, in float64."""
    seen, activated = {}, []
    handles = [network._swish.register_forward_hook(lambda module, inputs, output: activated.append(output))]
    for i, block in enumerate(network._blocks):
        handles.append(block.register_forward_hook(lambda module, inputs, out, i=i: seen.update({f"block{i}": out})))
    with torch.inference_mode():
        logits = network(x)
    for handle in handles:
        handle.remove()
    stem, last = activated  # one module serves both
    named = {"stem": stem, **seen, "conv_head": last, "logits": logits}
    return {name: value.double().numpy(force=True).copy() for name, value in named.items()}


if __name__ == "__main__":
    main()
