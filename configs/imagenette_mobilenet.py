"""A bottleneck in an ImageNet MobileNetV2, distilled on Imagenette's images.

    python -m bottlefit_jax.main --config=configs/imagenette_mobilenet.py:6ch --workdir=runs/mobilenet-6ch \\
        --config.teacher.weights=weights/mobilenet_v2 --config.dataset.root=IMAGENETTE
    python -m bottlefit_jax.main --config=configs/evaluate.py --workdir=runs/mobilenet-6ch-val1300 \\
        --config.teacher.weights=weights/mobilenet_v2 --config.student.weights=runs/mobilenet-6ch/student \\
        --config.dataset.root=ILSVRC_VAL1300 --config.dataset.resize=224

The argument is the number of channels, and `patch` where the encoder is to be ours: `6ch` or `6ch,patch`, which takes
half an hour on two cores. Result: docs/results.md.

Trained on crops of 128 px, evaluated at 224 px by the second command. An image of 160 px is enlarged 1.4 times for a
network of 224 px, and a crop of 128 px that is enlarged as much shows 91 of its 160 pixels a side, a third of the area.
Encoder and decoder see no further than some dozen pixels, so they meet what they will meet at 224 px, at a third of the
cost.
"""

import re

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config


def get_config(argument="6ch"):
    """Stage 1 alone, on all matched features: stage 2 would teach ten classes to a network of a thousand."""
    match = re.fullmatch(r"(\d+)ch(,patch)?", argument)
    if not match:
        raise UserError(f"configs/imagenette_mobilenet.py does not know {argument!r}; 6ch and 6ch,patch are right")
    config = base_config()
    config.dataset.update(name="folder", root="data/imagenette160", image_size=128, crop_scale=(0.2, 0.5), workers=2)
    config.dataset.resize = 224
    config.teacher.name = "mobilenet_v2"
    config.student.bottleneck.update(channels=int(match[1]), design="patch" if match[2] else "bottlefit")
    config.stages.teacher.epochs = 0
    config.stages.stage1.update(epochs=8, batch_size=32, learning_rate=0.01, schedule="cosine")
    config.stages.stage2.epochs = 0
    return config
