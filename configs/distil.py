r"""An ImageNet classifier, split between device and server; it learns the split on images without labels.

    python -m bottlefit_jax.main --config=configs/distil.py --workdir=runs/crops \
        --config.teacher.weights=weights/efficientnet_lite0 --config.dataset.unlabelled=FRAMES
    python -m bottlefit_jax.main --config=configs/distil.py:evaluate --workdir=runs/split \
        --config.teacher.weights=weights/efficientnet_lite0 --config.student.weights=runs/crops/student \
        --config.dataset.unlabelled=FRAMES
    python -m export.bundle --workdir runs/split --output bundles/split

The weights are any network of 224 px that `bottlefit_jax.convert` wrote. FRAMES is any tree of images, such as a
camera's own; several are `"('A','B')"`. One image in ten is held out, and the report says how often student and teacher
agree on those. With `--config.dataset.eval_name=folder --config.dataset.eval_root=ROOT` it says instead how many of the
labelled images in ROOT/val the student classifies correctly. Result: docs/results.md.

The argument is the number of channels and the encoder, such as `12ch,bottlefit` or `12ch,patch`; without it, 32
coefficients of a transform that begins as JPEG's.

Training uses crops of 128 px, the second command evaluates at 224 px, and its workdir is what to export. A network of
224 px enlarges an image of 160 px by 1.4, and a crop of 128 px enlarged as much shows 91 of its 160 pixels a side, a
third of the area; `crop_scale` is for images of that size. The receptive field of encoder and decoder is a few dozen
pixels at most, so these crops show them the same content as 224 px does, at a third of the cost.
"""

import re

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config

FORMAT = r"(\d+)ch,(bottlefit|patch|dct)"


def get_config(argument="32ch,dct"):
    """Return a run of stage 1 and stage 2 by the teacher's answers alone, or of neither.

    Args:
        argument: channels and encoder, such as `32ch,dct`, or `evaluate`.
    """
    config = base_config()
    config.dataset.update(name="", image_size=128, resize=224, crop_scale=(0.2, 0.5), workers=2)
    config.teacher.name = ""
    config.stages.teacher.epochs = 0
    if argument == "evaluate":
        config.dataset.image_size = 0
        config.stages.stage1.epochs = config.stages.stage2.epochs = 0
        return config
    match = re.fullmatch(FORMAT, argument)
    if not match:
        raise UserError(f"configs/distil.py does not know {argument!r}; it knows evaluate, 32ch,dct and 12ch,patch")
    config.student.bottleneck.update(channels=int(match[1]), design=match[2])
    config.student.rate.update(weight=0.3, steps=(0.35, 0.5, 0.7, 1.0, 1.4))
    config.stages.stage1.update(epochs=2, batch_size=16, learning_rate=1e-3, schedule="cosine", relative=True)
    config.stages.stage2.update(epochs=1, batch_size=16, learning_rate=1e-3, schedule="cosine", alpha=0.0)
    return config
