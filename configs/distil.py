r"""An ImageNet classifier, split between device and server; it learns the split on images without labels.

    python -m bottlefit_jax.main --config=configs/distil.py --workdir=runs/split \
        --config.teacher.weights=weights/efficientnet_lite0 --config.dataset.unlabelled=FRAMES
    python -m export.bundle --workdir runs/split --output bundles/split

The weights are any network that `bottlefit_jax.convert` wrote. FRAMES is any tree of images, such as a camera's own;
several are `"('A','B')"`. One image in ten is held out, and the report says how often student and teacher agree on
those. With `--config.dataset.eval_name=folder --config.dataset.eval_root=ROOT` it says instead how many of the labelled
images in ROOT/val the student classifies correctly.

The argument is the number of channels and the encoder, such as `12ch,bottlefit` or `12ch,patch`; without it, 32
coefficients of a transform that begins as JPEG's. With `crops` behind it, training sees images at 128 px, which takes
a third of the time; the student is then evaluated at the weights' own size, and exported, by a second run:

    python -m bottlefit_jax.main --config=configs/distil.py:32ch,dct,crops --workdir=runs/crops \
        --config.teacher.weights=weights/efficientnet_lite0 --config.dataset.unlabelled=FRAMES
    python -m bottlefit_jax.main --config=configs/distil.py:evaluate --workdir=runs/split \
        --config.teacher.weights=weights/efficientnet_lite0 --config.dataset.unlabelled=FRAMES \
        --config.student.weights=runs/crops/student

A crop is at least two fifths of an image, so that images from 200 px on are never enlarged: a student that learns from
enlarged images learns that there is no fine detail. Result: docs/results.md.
"""

import re

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config

FORMAT = r"(\d+)ch,(bottlefit|patch|dct)(,crops)?"


def get_config(argument="32ch,dct"):
    """Return a run of both stages, which learns from the teacher's features alone; or one that evaluates.

    Args:
        argument: channels and encoder, such as `32ch,dct` or `32ch,dct,crops`; or `evaluate`.
    """
    config = base_config()
    config.dataset.update(name="", image_size=0, workers=2)
    config.teacher.name = ""
    config.stages.teacher.epochs = 0
    if argument == "evaluate":
        config.stages.stage1.epochs = config.stages.stage2.epochs = 0
        return config
    match = re.fullmatch(FORMAT, argument)
    if not match:
        raise UserError(
            f"configs/distil.py does not know {argument!r}; it knows evaluate, 32ch,dct and 12ch,patch,crops"
        )
    if match[3]:
        config.dataset.update(image_size=128, crop_scale=(0.4, 1.0))
    config.stages.stage2.fixed_norms = True  # a fleet's frames are not ImageNet: without it, 9 points were lost
    config.student.bottleneck.update(channels=int(match[1]), design=match[2])
    config.student.rate.update(weight=0.3, steps=(0.35, 0.5, 0.7, 0.9))
    common = {"epochs": 1, "batch_size": 16, "optimizer": "adam", "schedule": "cosine", "relative": True}
    config.stages.stage1.update(common, learning_rate=2e-3)
    config.stages.stage2.update(common, learning_rate=1e-4, weight_decay=0.0, loss="feature_matching")
    return config
