r"""A bottleneck in a MobileNetV2 that was trained on ImageNet, distilled on Imagenette's images.

    python -m bottlefit_jax.main --config=configs/imagenette_mobilenet.py:6ch --workdir=runs/mobilenet-6ch \
        --config.teacher.weights=weights/mobilenet_v2 --config.dataset.root=IMAGENETTE
    python -m bottlefit_jax.main --config=configs/evaluate.py --workdir=runs/mobilenet-6ch-val1300 \
        --config.teacher.weights=weights/mobilenet_v2 --config.student.weights=runs/mobilenet-6ch/student \
        --config.dataset.root=ILSVRC_VAL1300 --config.dataset.resize=224
    python -m bottlefit_jax.main --config=configs/imagenette_mobilenet.py:6ch --workdir=runs/mobilenet-frames \
        --config.teacher.weights=weights/mobilenet_v2 --config.dataset.name= --config.dataset.unlabelled=FRAMES

The argument is the number of channels, and `patch` for our own encoder: `6ch` or `6ch,patch`, which takes half an hour
on two cores. Result: docs/results.md. The third command trains on any folder of images, without labels, and reports
agreement with the teacher. With `--config.dataset.eval_name=folder --config.dataset.eval_root=ILSVRC_VAL1300` it
reports accuracy there.

Training uses crops of 128 px; the second command evaluates at 224 px. A network of 224 px enlarges an image of 160 px
by 1.4, and a crop of 128 px enlarged as much shows 91 of its 160 pixels a side, a third of the area. The receptive
field of encoder and decoder is a few dozen pixels, so these crops show them the same content as 224 px does, at a third
of the cost.
"""

import re

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config


def get_config(argument="6ch"):
    """Return a run of stage 1 alone: stage 2 would train a network of a thousand classes on ten.

    Args:
        argument: channels and encoder, `6ch` or `6ch,patch`.
    """
    match = re.fullmatch(r"(\d+)ch(,patch)?", argument)
    if not match:
        raise UserError(f"configs/imagenette_mobilenet.py does not know {argument!r}; it knows 6ch and 6ch,patch")
    config = base_config()
    config.dataset.update(name="folder", root="data/imagenette160", image_size=128, crop_scale=(0.2, 0.5), workers=2)
    config.dataset.resize = 224
    config.teacher.name = "mobilenet_v2"
    config.student.bottleneck.update(channels=int(match[1]), design="patch" if match[2] else "bottlefit")
    config.stages.teacher.epochs = 0
    config.stages.stage1.update(epochs=8, batch_size=32, learning_rate=0.01, schedule="cosine")
    config.stages.stage2.epochs = 0
    return config
