r"""Evaluates networks as they are: a teacher, a student, or both. Nothing is trained.

    python -m bottlefit_jax.main --config=configs/evaluate.py --workdir=runs/evaluation \
        --config.teacher.weights=weights/mobilenet_v2 --config.dataset.root=ROOT

The weights are folders that `bottlefit_jax.convert` or a run wrote; name a student's in `config.student.weights`.
Model, options, bottleneck, normalisation and image size are those of the weights. ROOT holds val/CLASS/*.jpg and
train/CLASS/*.jpg, or the images with labels.csv (filename, class_index, wnid) and synset_words.txt. For a network of
224 px, images are resized to 256 px on the short side and cropped to 224 x 224; `--config.dataset.resize=224` resizes
them to 224 px, so that the crop keeps the whole short side.
"""

from bottlefit_jax.recipe import base_config


def get_config():
    """Return a run without training, of the model that the weights name."""
    config = base_config()
    config.dataset.update(name="folder", image_size=0, workers=2)
    config.teacher.name = ""
    for stage in config.stages.values():
        stage.epochs = 0
    return config
