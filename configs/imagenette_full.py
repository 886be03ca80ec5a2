"""Imagenette at 224 px in bfloat16, teacher from scratch: some five minutes on an H200.

    python -m bottlefit_jax.main --config=configs/imagenette_full.py:resnet50 --workdir=runs/imagenette_full \\
        --config.dataset.root=ROOT

The argument is the model: resnet50 (12 channels) or densenet169 (3 channels), the paper's widest and narrowest.
ROOT holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. Result: see docs/results.md once it is measured there.

The paper's stages have 10 epochs of ImageNet's 1.28 million images each, 200,000 steps of 64. Imagenette has 9,460
images, so that as many epochs would be 1,470 steps, and as many steps would be 1,350 epochs. This config is made to
fit twice into `benchmarks/gpu.sh`'s ten minutes, so it goes below the epochs: 8 for a teacher, 4 + 4 for the student.
Everything that does not depend on the number of images is the paper's, but for the encoder, which begins with the
teacher's stem: batch 64, Adam 1e-3 and then SGD 1e-3 with momentum 0.9 and weight decay 5e-4, both ×0.1 after half of
their epochs. With an hour, give the stages what they lack:

    --config.stages.teacher.epochs=60 --config.stages.stage1.epochs=20 --config.stages.stage1.milestones=10, \\
        --config.stages.stage2.epochs=20 --config.stages.stage2.milestones=10,
"""

from bottlefit_jax.errors import UserError
from bottlefit_jax.recipe import base_config

CHANNELS = {"resnet50": 12, "densenet169": 3}


def get_config(argument="resnet50"):
    """The paper's recipe for one of the two models, and a teacher's for a small set."""
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
