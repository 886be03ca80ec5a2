"""Evaluates networks as they are: a teacher, a student, or both. Nothing is trained.

    python -m bottlefit_jax.main --config=configs/evaluate.py --workdir=runs/evaluation \\
        --config.teacher.weights=weights/mobilenet_v2 --config.dataset.root=ROOT

The weights are folders written by `bottlefit_jax.convert` or by a run; a student's go into `config.student.weights`.
Model, options, bottleneck, normalisation and image size are those of the weights. ROOT holds val/CLASS/*.jpg and
train/CLASS/*.jpg, or labels.csv (filename, class_index, wnid) and synset_words.txt beside the images. For a network
of 224 px they are resized to 256 px on the short side and cropped; `--config.dataset.resize=224` takes them whole.
"""

from bottlefit_jax.recipe import base_config


def get_config():
    """No epochs anywhere, and the model that the weights are of."""
    config = base_config()
    config.dataset.update(name="folder", image_size=0, workers=2)
    config.teacher.name = ""
    for stage in config.stages.values():
        stage.epochs = 0
    return config
