"""Handwritten digits, from nothing to a bottlenecked classifier, in about a minute on two cores.

    python -m bottlefit_jax.main --config=configs/digits.py --workdir=runs/digits

The scans that come with scikit-learn, at 32 px; the teacher is a narrow ResNet-18. With the encoder `patch` the device
computes an eighth of the teacher's multiply-adds, and sends 12 to 17 bytes (one core, two); WebP at quality 5 has 120.
Stage 1 has the rate term. Result: docs/results.md.
"""

from bottlefit_jax.recipe import base_config


def get_config():
    """Return a small run of all three stages."""
    config = base_config()
    config.dataset.update(name="digits", image_size=32, resize=32, crop_scale=(0.7, 1.0), flip=False, workers=2)
    config.teacher.update(name="resnet18", options={"width": 16})
    config.student.bottleneck.update(channels=3, design="patch")
    config.student.rate.weight = 0.3
    config.stages.teacher.update(
        epochs=18,
        batch_size=32,
        learning_rate=0.1,
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=5e-4,
        label_smoothing=0.1,
    )
    config.stages.stage1.update(epochs=16, batch_size=32, learning_rate=2e-3, schedule="cosine", relative=True)
    config.stages.stage2.update(epochs=8, batch_size=32, learning_rate=5e-3, schedule="cosine")
    config.checkpoint.every_steps = 0
    return config
