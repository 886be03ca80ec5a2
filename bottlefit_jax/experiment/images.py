"""The images of an experiment: those that its stages train on, with labels or without, and those of its evaluation."""

from bottlefit_jax import data
from bottlefit_jax.data.unlabelled import Joined
from bottlefit_jax.errors import UserError
from bottlefit_jax.experiment.inputs import Networks, needs_calibration, stages_to_run
from bottlefit_jax.recipe import Config, evaluates_agreement, needs_labels


def open_source(config: Config, split: str) -> data.Source:
    """Open and check the images of one split.

    Raises:
        UserError: see `data.open_images` and `data.check_images`.
    """
    chosen = config.dataset
    keys = ("name", "root", "unlabelled", "eval_name", "eval_root", "on_bad_image")
    source = data.open_images(split, **{key: chosen[key] for key in keys})
    if split == "train":
        for name in stages_to_run(config):
            data.steps_per_epoch(images_of_stage(config, name, source), config.stages[name].batch_size)
    data.check_images(source)
    return source


def images_of_stage(config: Config, stage: str, source: data.Source) -> data.Source:
    """Return what a stage trains on: all training images, or those with labels where it needs these.

    Args:
        config: of the run.
        stage: its name.
        source: all training images.
    """
    return source.sources[0] if isinstance(source, Joined) and needs_labels(config, stage) else source


def class_names(config: Config, eval_source: data.Source) -> dict[str, tuple[str, ...] | None]:
    """Return the classes of the evaluation images and of the training images, for `create_networks`.

    Those of evaluation images without labels are None, and so are training classes that no stage needs.

    Raises:
        UserError: see `data.open_source`.
    """
    chosen = config.dataset
    trained = eval_source.class_names if chosen.name and not chosen.eval_name else None
    if chosen.name and chosen.eval_name and any(needs_labels(config, name) for name in stages_to_run(config)):
        trained = data.open_source(chosen.name, split="train", root=chosen.root).class_names
    return {"class_names": None if evaluates_agreement(config) else eval_source.class_names, "train_names": trained}


def open_training(config: Config, networks: Networks, eval_source: data.Source) -> data.Source | None:
    """Open the training images; None where nothing is trained, calibrated or sent as payloads.

    Payloads can do without them: None too where they are needed for nothing else and there are none.

    Raises:
        UserError: see `open_source`; or their classes differ from those of the evaluation images.
    """
    same = bool(config.dataset.name and not config.dataset.eval_name)  # both are splits of one data set
    if not stages_to_run(config) and not needs_calibration(networks.student_variables):
        if networks.student is None or not networks.bottleneck["bits"]:
            return None
        try:
            source = open_source(config, "train")
        except UserError:
            return None
        return source if not same or source.class_names == eval_source.class_names else None
    source = open_source(config, "train")
    if same and source.class_names != eval_source.class_names:
        different = sorted({*source.class_names} ^ {*eval_source.class_names})
        raise UserError(f"training and evaluation images have different classes: {', '.join(different[:5])}")
    return source


def describe_data(networks: Networks, eval_source: data.Source, train_source: data.Source | None) -> list[str]:
    """Return notes on the images for the user, a line each.

    They name files that are left out, an assumed order of classes, and what is measured where there are no labels.
    """
    sources = [source for source in (train_source, eval_source) if source is not None]
    lines = [f"left out of {source.split}: {left_out}" for source in sources if (left_out := source.left_out())]
    if isinstance(eval_source, data.Unlabelled):
        return [
            *lines,
            f"no labels: agreement with the teacher is measured on {len(eval_source):,} images that are held out",
        ]
    return lines if networks.labels else [*lines, data.describe_order(eval_source.class_names)]
