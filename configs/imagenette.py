r"""Ten ImageNet classes, teacher from scratch at 32 px: twenty-five minutes on two cores, about two hours to compare.

    python -m bottlefit_jax.main --config=configs/imagenette.py --workdir=runs/imagenette \
        --config.dataset.root=ROOT
    python -m bottlefit_jax.compare --config=configs/imagenette.py --workdir=runs/imagenette \
        --config.dataset.root=ROOT

ROOT holds train/CLASS/*.JPEG and val/CLASS/*.JPEG. Result: docs/results.md. Size and epochs fit two cores; two
processes with different --methods and JAX_NUM_CPU_DEVICES=1, one a core, are the fastest. The teacher is trained until
it learns nothing more: beside one that was stopped early, every student that learns from labels looks good, and the
comparison shows nothing. Stage 1 has most of a student's epochs, since the encoder learns only there.
"""

from bottlefit_jax.recipe import base_config


def get_config():
    """Return a run with a ResNet-18 of three eighths of the width at 32 px, and 9 channels."""
    config = base_config()
    config.dataset.update(name="folder", root="data/imagenette160", image_size=32, crop_scale=(0.25, 1.0), workers=2)
    config.teacher.update(name="resnet18", options={"width": 24})
    config.student.bottleneck.update(channels=9)
    config.stages.teacher.update(
        epochs=75, batch_size=32, learning_rate=0.05, milestones=(30, 42), warmup_epochs=1, weight_decay=5e-4
    )
    config.stages.stage1.update(epochs=8, batch_size=32, learning_rate=0.01, schedule="cosine", relative=True)
    config.stages.stage2.update(epochs=4, batch_size=32, learning_rate=0.05, schedule="cosine")
    config.evaluate_every = 4
    return config
