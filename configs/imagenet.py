r"""All the runs of the BottleFit paper on ImageNet; an argument chooses one.

    python -m bottlefit_jax.main --config=configs/imagenet.py:resnet152,12ch,kd,frozen \
        --workdir=runs/imagenet --config.teacher.weights=weights/resnet152 --config.dataset.root=DATA_DIR

The argument is a model (densenet169, densenet201, resnet152) and any of these, in any order:

    3ch           channels of the latent (the paper: 3, 6, 9, 12; ResNet also 1 and 2); 12ch unless given
    ft | kd       stage 2 minimises cross-entropy (fine-tune), or also the distance to the teacher (distil, the default)
    frozen | free stage 2 freezes the encoder as stage 1 left it (the default), or trains it too
    8bit | float  the latent is quantised to 8 bits in evaluation (the default), or not
    v1 | v2 | v3  the ResNet bottleneck's version; v2 unless given
    update        frozen parts update their batch statistics, as in the reference's code

The teacher's weights are a folder that `bottlefit_jax.convert` or another run wrote; DATA_DIR holds TFDS's imagenet2012
as ArrayRecord. The recipe is the reference's (`recipe.base_config`). Result: not measured yet, since it needs ImageNet.
"""

import re

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config

MODELS = ("densenet169", "densenet201", "resnet152")


def get_config(arg="resnet152"):
    """Return the base recipe with the choices of an argument.

    Args:
        arg: words with commas between them, as the module's docstring lists them.
    """
    config = base_config()
    bottleneck, stage2 = config.student.bottleneck, config.stages.stage2
    config.stages.teacher.epochs = 0
    config.checkpoint.select = "best"  # as the reference does
    config.student.stem = "random"  # likewise
    bottleneck.range = "dynamic"  # likewise: a range for each image, which a payload pays for
    choices = {
        "ft": lambda: stage2.update(loss="cross_entropy"),
        "kd": lambda: stage2.update(loss="distillation"),
        "frozen": lambda: stage2.update(freeze_encoder=True),
        "free": lambda: stage2.update(freeze_encoder=False),
        "8bit": lambda: bottleneck.update(bits=8),
        "float": lambda: bottleneck.update(bits=0),
        "update": lambda: config.update(frozen_statistics="update"),
        **{f"v{version}": lambda version=version: bottleneck.update(version=version) for version in (1, 2, 3)},
        **{name: lambda name=name: config.teacher.update(name=name) for name in MODELS},
    }
    for word in arg.split(","):
        if re.fullmatch(r"[0-9]+ch", word):
            bottleneck.channels = int(word.removesuffix("ch"))
        elif word in choices:
            choices[word]()
        else:
            raise UserError(
                f"configs/imagenet.py does not know {word!r}; it knows 3ch (any number), {', '.join(choices)}"
            )
    return config
