r"""Imagenette at 224 px in bfloat16, teacher from scratch: about five minutes on an H200.

    python -m bottlefit_jax.main --config=configs/imagenette_full.py:resnet50 --workdir=runs/imagenette_full \
        --config.dataset.root=ROOT

The argument is the model: resnet50 (12 channels) or densenet169 (3 channels), the paper's widest and narrowest.
ROOT holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. Result: see docs/results.md once it is measured there.

Each of the paper's stages has 10 epochs of ImageNet's 1.28 million images, which are 200,000 steps of 64. Imagenette
has 9,460 images: 10 epochs of it are 1,470 steps, and 200,000 steps are 1,350 epochs. This config must fit twice into
the ten minutes of `benchmarks/gpu.sh`, so it has fewer epochs still: 8 for a teacher, 4 + 4 for the student. What does
not depend on the number of images is the paper's: batch 64, Adam 1e-3 and then SGD 1e-3 with momentum 0.9 and weight
decay 5e-4, both ×0.1 after half of their epochs. Only the encoder differs: it begins with the teacher's stem. If you
have an hour, give the stages more epochs:

    --config.stages.teacher.epochs=60 --config.stages.stage1.epochs=20 --config.stages.stage1.milestones=10, \
        --config.stages.stage2.epochs=20 --config.stages.stage2.milestones=10,
"""

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config

CHANNELS = {"resnet50": 12, "densenet169": 3}


def get_config(argument="resnet50"):
    """Return the paper's recipe for a model, with a teacher's for a small dataset.

    Args:
        argument: the name of the model.
    """
    if argument not in CHANNELS:
        raise UserError(f"configs/imagenette_full.py does not know {argument!r}; it knows {' and '.join(CHANNELS)}")
    config = base_config()
    config.compute_dtype = "bfloat16"
    config.eval_batch_size = 256
    config.checkpoint.every_steps = 0
    config.dataset.update(name="folder", root="data/imagenette", image_size=224, crop_scale=(0.35, 1.0), workers=16)
    config.teacher.name = argument
    config.student.bottleneck.channels = CHANNELS[argument]
    config.stages.teacher.update(
        epochs=8, batch_size=64, learning_rate=0.05, schedule="cosine", warmup_epochs=1, weight_decay=5e-4
    )
    config.stages.stage1.update(epochs=4, milestones=(2,))
    config.stages.stage2.update(epochs=4, milestones=(2,))
    return config
