"""Ten ImageNet classes, teacher from scratch at 64 px: an hour on two cores, minutes on a GPU.

    python -m bottlefit_jax.main --config=configs/imagenette.py --workdir=runs/imagenette \\
        --config.dataset.root=ROOT

ROOT holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. Result: see docs/results.md once it is measured there.
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
    config.stages.stage1.update(epochs=10, batch_size=32)
    config.stages.stage2.update(epochs=10, batch_size=32)
    return config
