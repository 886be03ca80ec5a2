"""Ten ImageNet classes, teacher from scratch at 64 px: ten minutes on two cores, and an hour and a half to compare.

    python -m bottlefit_jax.main --config=configs/imagenette.py --workdir=runs/imagenette \\
        --config.dataset.root=ROOT
    python -m bottlefit_jax.evaluation.compare --config=configs/imagenette.py --workdir=runs/imagenette \\
        --config.dataset.root=ROOT

ROOT holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. Result: docs/results.md. With 9,460 pictures the tail learns its
training set by heart in stage 2, so stage 1 has most of the epochs and stage 2 listens to the teacher more than to the
labels.
"""

from bottlefit_jax.recipe import base_config


def get_config():
    """A ResNet-18 of half the width at 64 px, 8 channels."""
    config = base_config()
    config.dataset.update(name="folder", root="data/imagenette160", image_size=64, crop_scale=(0.35, 1.0), workers=2)
    config.teacher.update(name="resnet18", options={"width": 32})
    config.student.bottleneck.update(channels=8)
    config.stages.teacher.update(
        epochs=25, batch_size=32, learning_rate=0.05, schedule="cosine", warmup_epochs=1, weight_decay=5e-4
    )
    config.stages.stage1.update(epochs=10, batch_size=32, learning_rate=6e-3, schedule="cosine")
    config.stages.stage2.update(
        epochs=3, batch_size=32, learning_rate=3e-3, schedule="cosine", alpha=0.1, temperature=2.0
    )
    return config
