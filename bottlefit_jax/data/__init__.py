"""Images, labelled or not, as uint8 NHWC batches: sources, augmentation, the Grain loader. Nothing here imports JAX."""

from typing import TYPE_CHECKING

from bottlefit_jax.lazy import exports

if TYPE_CHECKING:
    from bottlefit_jax.data.augment import default_resize
    from bottlefit_jax.data.check import check_images
    from bottlefit_jax.data.labels import class_columns, describe_order, match_labels, read_labels
    from bottlefit_jax.data.loader import eval_batches, spread, steps_per_epoch, train_batches
    from bottlefit_jax.data.open import open_images, open_source
    from bottlefit_jax.data.source import Source
    from bottlefit_jax.data.unlabelled import Unlabelled

__all__ = [
    "Source",
    "Unlabelled",
    "check_images",
    "class_columns",
    "default_resize",
    "describe_order",
    "eval_batches",
    "match_labels",
    "open_images",
    "open_source",
    "read_labels",
    "spread",
    "steps_per_epoch",
    "train_batches",
]

__getattr__ = exports(
    __name__,
    {
        "augment": ("default_resize",),
        "check": ("check_images",),
        "labels": ("class_columns", "describe_order", "match_labels", "read_labels"),
        "loader": ("eval_batches", "spread", "steps_per_epoch", "train_batches"),
        "open": ("open_images", "open_source"),
        "source": ("Source",),
        "unlabelled": ("Unlabelled",),
    },
)
