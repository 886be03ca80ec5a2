"""The report's plots: what is drawn for any history and any latents."""

import itertools

import numpy as np
import pytest
from PIL import Image

from bottlefit_jax.drawing.figures import SMALL
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation import plots
from bottlefit_jax.training.optimizer import create_schedule


def epochs(stage, count, **columns):
    return [{"stage": stage, "epoch": i + 1, **{name: fn(i) for name, fn in columns.items()}} for i in range(count)]


def inked(path):
    """The size of an image and the share of it that is not white."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.shape[1], pixels.shape[0], float((pixels != 255).any(axis=-1).mean())


def test_every_stage_gets_a_column(tmp_path):
    rate = {"learning_rate": lambda i: 1e-3 if i < 3 else 1e-4}
    teacher = epochs("teacher", 6, train_loss=lambda i: 1 / (i + 1), top1=lambda i: 80 + i, **rate)
    head = epochs("stage1", 6, train_loss=lambda i: 1e5 * 0.3**i, eval_loss=lambda i: 1e5 * 0.4**i, top1=lambda i: None)
    plots.training_curves(tmp_path / "one.png", teacher)
    plots.training_curves(tmp_path / "two.png", teacher + head)
    one, two = inked(tmp_path / "one.png"), inked(tmp_path / "two.png")
    assert one[:2] == two[:2]
    assert min(one[2], two[2]) > 0.02
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize(
    ("history", "title"),
    [
        (
            epochs("teacher", 1, train_loss=lambda i: 2.0, top1=lambda i: 27.3),
            "teacher ends at 27.3 % top-1 after 1 epoch",
        ),
        (
            epochs("teacher", 3, top1=lambda i: 99.0) + epochs("stage2", 2, top1=lambda i: 98.0 + 0.7 * i),
            "stage2 ends at 98.7 % top-1, 0.3 points below the teacher",
        ),
        (
            epochs("teacher", 3, top1=lambda i: 99.0) + epochs("stage2", 2, top1=lambda i: 99.02),
            "stage2 ends at 99.0 % top-1, as the teacher does",
        ),
        (epochs("stage1", 3, train_loss=lambda i: 9.0 - i), "stage1, 3 epochs: its loss goes from 9 to 7"),
        (epochs("stage1", 1), "stage1: nothing was measured"),
    ],
)
def test_the_title_says_where_the_training_ends(history, title):
    assert plots._curves(history, ("stage1",), "top-1").get_suptitle() == title


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_texts_of_any_number_of_stages_are_in_the_image_apart_and_large_enough(count):
    names = ["teacher", "stage1", "stage2", "a stage whose name is longer than its panel is wide", *"abc"][:count]
    history = [
        entry for name in names for entry in epochs(name, 6, train_loss=lambda i: 1e5 * 0.3**i, top1=lambda i: 90.0 + i)
    ]
    plot = plots._curves(history, ("stage1",), "top-1")
    plot.draw_without_rendering()
    assert len(plot.axes) == 2 * count
    found = [plot._suptitle]
    for axes in plot.axes:
        found += [axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label]
    found = [text for text in found if text.get_text()]
    boxes = [text.get_window_extent() for text in found]
    for text, box in zip(found, boxes, strict=True):
        assert 0 <= box.x0 < box.x1 <= plot.bbox.width + 1, text
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, text
        assert text.get_fontsize() >= SMALL, text
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("loss", [0.0, 1.0, -1.0, 5e7, float("nan")])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_single_epoch_of_any_size_is_drawn(tmp_path, stage, loss):
    plots.training_curves(tmp_path / "c.png", epochs(stage, 1, train_loss=lambda i: loss, top1=lambda i: 100.0))
    assert inked(tmp_path / "c.png")[2] > 0.01


def test_only_drops_of_a_stepwise_rate_are_marked():
    steps = epochs("a", 6, learning_rate=lambda i: 1e-3 if i < 3 else 1e-4)
    smooth = epochs("a", 10, learning_rate=lambda i: 1e-3 * 0.8**i)
    assert plots._rate_drops(steps) == [4]
    assert plots._rate_drops(smooth) == []
    assert plots._rate_drops(epochs("a", 3)) == []


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("warmup", [0, 1])
def test_a_cosine_schedule_of_any_length_has_no_drops(count, warmup):
    rate = create_schedule("cosine", learning_rate=0.1, epochs=count, steps_per_epoch=45, warmup_epochs=warmup)
    cosine = epochs("a", count, learning_rate=lambda i: float(rate(45 * (i + 1) - 1)))
    assert plots._rate_drops(cosine) == []


def test_every_drop_of_a_stepwise_schedule_with_a_warm_up_is_marked():
    rate = create_schedule(
        "multistep", learning_rate=0.1, epochs=9, steps_per_epoch=10, milestones=(3, 6, 8), gamma=0.1, warmup_epochs=1
    )
    steps = epochs("a", 9, learning_rate=lambda i: float(rate(10 * (i + 1) - 1)))
    assert plots._rate_drops(steps) == [4, 7, 9]


def test_both_of_two_equal_curves_are_visible(tmp_path):
    axes = plots.figure(4).subplots()
    plots._loss_panel(axes, epochs("a", 3, train_loss=lambda i: 1.0, eval_loss=lambda i: 1.0), log=False)
    below, above = axes.lines
    assert (below.get_linestyle(), above.get_linestyle()) == ("-", "--")
    assert above.get_markerfacecolor() == "none"
    assert above.get_markersize() > below.get_markersize()


@pytest.mark.parametrize(
    ("channels", "grid"), [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (4, (2, 2)), (9, (3, 3)), (12, (3, 4)), (40, (3, 4))]
)
def test_channels_form_a_grid_with_gaps(channels, grid):
    latent = np.broadcast_to(np.arange(channels, dtype=np.uint8), (5, 7, channels))
    mosaic = plots._mosaic(latent)
    rows, columns = grid
    assert mosaic.shape == (rows * 6 - 1, columns * 8 - 1)
    seen = mosaic.compressed()
    assert sorted(set(seen)) == list(range(min(channels, plots.MAX_CHANNELS)))
    assert seen.size == 35 * min(channels, plots.MAX_CHANNELS)


def test_images_are_drawn_beside_their_latents(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    latents = rng.integers(0, 256, (6, 5, 5, 3)).astype(np.uint8)
    names = ["zero", "a name that is far too long to be written over one image", "$2$", "$3", "4", "5"]
    plots.latents(tmp_path / "l.png", images, latents, names, [*names[:5], "6"], 84, rng.integers(800, 1200, 6))
    assert inked(tmp_path / "l.png")[2] > 0.4
    plots.latents(tmp_path / "one.png", images[:1], latents[:1] // 16, ["0"], ["0"], 84, 900, bits=4)


@pytest.mark.parametrize(("count", "channels"), [(1, 3), (6, 3), (4, 40)])
def test_the_plot_of_latents_says_what_they_save_and_its_texts_are_in_the_image(count, channels):
    images, latents = np.zeros((count, 32, 32, 3), np.uint8), np.zeros((count, 5, 5, channels), np.uint8)
    names = ["a name that is far too long to be written over one image"] * count
    sent, jpeg = np.full(count, 21), np.full(count, 1036)
    plot = plots._latents(images, latents, names, [*names[:-1], "b"], sent, jpeg, 255)
    plot.draw_without_rendering()
    predictions = "1 prediction are" if count == 1 else f"{count} predictions are"
    assert plot.get_suptitle().replace("\n", " ") == (
        f"21 bytes an image instead of 1,036 as JPEG at quality 95; {count - 1} of {predictions} correct"
    )
    found = [plot._suptitle]
    for axes in plot.axes:
        found += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    for text in (text for text in found if text.get_text().strip()):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= plot.bbox.width + 1, text
        assert 0 <= box.y0 < box.y1 <= plot.bbox.height + 1, text
        assert text.get_fontsize() >= SMALL, text
    assert plot.axes[-1].get_ylabel().startswith("value that arrives (no unit)")


def test_wrong_arguments_are_one_line(tmp_path):
    image, latent = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 3, 3, 1), np.uint8)
    with pytest.raises(UserError, match="2 images, 2 latents, 1 and 2 names"):
        plots.latents(tmp_path / "l.png", image, latent, ["a"], ["a", "b"], 9, 900)
    with pytest.raises(UserError, match="no epochs"):
        plots.training_curves(tmp_path / "c.png", [])
    with pytest.raises(UserError, match="cannot write"):
        plots.training_curves(tmp_path / "missing" / "c.png", epochs("a", 1, train_loss=lambda i: 1.0))
