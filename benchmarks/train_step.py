r"""Stage 1, images per second: our compiled step against the same stage in PyTorch, in turns in one process.

    pip install 'bottlefit-jax[bench]'
    python -m benchmarks.train_step                              # ResNet-18, 64 px, batch 32
    python -m benchmarks.train_step --data digits                # the second part on the digits
    python -m benchmarks.train_step --model resnet50 --size 96   # any ResNet
    python -m benchmarks.train_step --model resnet152 --size 224 --batch 128 --dtype bfloat16 --torch compiled \
        --steps 20 --rounds 7 --epochs 0                         # on a GPU

Ours is `create_train_step` as the loop uses it: on a GPU, or one JAX device per core; PyTorch has the same GPU, or all
cores. bfloat16 is PyTorch's autocast: parameters are float32 on both sides. Before anything is timed both must have the
same number of trained parameters, and the same loss on the same weights and images before and after one update.

Reported are the median over the rounds, the ratio within each round, and the share of what a large matrix
product reaches in the same round (`step_cost.py` says what is counted). Other load on the machine makes PyTorch's
threads wait for each other more than ours, so give it a quiet one.

The second part runs the package's own loop (loader, metrics, log, checkpoints) for some epochs, and compares an epoch's
wall time with its number of steps × the time of the compiled step on a batch that is already on the device, measured
between the epochs.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.our_train_step import BOTTLENECK, Ours, random_batch, timed
from benchmarks.step_cost import MatrixProduct, share_of_peak, stage1_flops
from bottlefit_jax import convert, data, models
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import local_path
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import checkpoint, loop, progress, sharding, step

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # relative, of the loss
IMAGES = 1024  # of the generated folder
IMAGE_SIZE = 160  # pixels, as in Imagenette-160


def main(argv: list[str] | None = None) -> int:
    """Run both parts, print them, and return the exit code."""
    options = parse(argv)
    if not options.skip_torch and importlib.util.find_spec("torch") is None:
        print("this comparison needs torch: pip install 'bottlefit-jax[bench]', or --skip-torch", file=sys.stderr)
        return 2
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch lives on the same GPU
    sharding.start_devices()
    if options.devices:
        jax.config.update("jax_num_cpu_devices", options.devices)
    try:
        ours = Ours.create(options)
        result: dict[str, Any] = {"options": vars(options), "device": sharding.describe(ours.mesh)}
        if not options.skip_torch:
            result["speed"] = compare(ours, options)
            report_speed(result["speed"], options)
        if options.epochs:
            result["epoch"] = measure_epochs(ours, options)
            report_epochs(result["epoch"])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Stage 1: ours against PyTorch, and the time around the step.")
    parser.add_argument("--model", default="resnet18", choices=[name for name in models.MODELS if "resnet" in name])
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=list(TOLERANCE))
    parser.add_argument("--torch", default="eager", choices=("eager", "compiled"),
                        help="PyTorch as it is, or with channels_last and torch.compile")  # fmt: skip
    parser.add_argument("--devices", type=int, default=0, help="JAX's CPU devices; 0: one per core")
    parser.add_argument("--steps", type=int, default=8, help="steps on each side in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of the second part; 0 leaves it out")
    parser.add_argument("--data", default="", help="its images: digits, or a folder with train/CLASS/*.jpg; "
                        f"default: {IMAGES} generated JPEGs of {IMAGE_SIZE} px")  # fmt: skip
    parser.add_argument("--skip-torch", action="store_true", help="only the second part")
    parser.add_argument("--json", type=local_path, help="also write the result to this file")
    return parser.parse_args(argv)


def start_torch(ours: Ours, batch: dict[str, np.ndarray], options: argparse.Namespace) -> Any:
    """PyTorch's step on the same weights and images."""
    from benchmarks.torch_train_step import TorchStep, torch_device

    device = torch_device(jax.default_backend())
    if not device or (device == "cuda" and ours.mesh.size > 1):
        raise UserError(
            "PyTorch sees no GPU and JAX does: JAX_PLATFORMS=cpu compares both on the CPU"
            if not device
            else f"JAX has {ours.mesh.size} GPUs and PyTorch takes one: CUDA_VISIBLE_DEVICES=0 compares both on one"
        )
    return TorchStep(
        options.torch,
        int(options.model.removeprefix("resnet")),
        ours.student.design,
        batch["image"],
        device=device,
        threads=sharding.cpu_count(),
        teacher=convert.to_torch(options.model, ours.teacher_variables),
        student=convert.to_torch(options.model, ours.variables, bottleneck=BOTTLENECK),
        matched=ours.student.matched,
        dtype=options.dtype,
        **ours.pixels,
    )


def compare(ours: Ours, options: argparse.Namespace) -> dict[str, Any]:
    """Check that both sides do the same work, then times them, and a matrix product, in turns.

    Returns:
        Images per second of each round on each side, their ratios, their shares of the product's rate, and what was
        compared beforehand.
    """
    batch = random_batch(options)
    began = time.perf_counter()
    theirs = start_torch(ours, batch, options)
    sides: dict[str, Any] = {"torch": theirs, "ours": ours.start(batch)}
    counted = sum(leaf.size for leaf in jax.tree.leaves(step.trained_params(ours.variables, ours.stage)))
    if counted != theirs.trained:
        raise UserError(f"the two sides train {counted} and {theirs.trained} parameters: they are not the same stage")
    losses = {name: [float(side.run()) for _ in range(2)] for name, side in sides.items()}
    off = max(abs(a / b - 1) for a, b in zip(losses["ours"], losses["torch"], strict=True))
    if not off < TOLERANCE[options.dtype]:
        raise UserError(f"the losses of the first two steps differ by {off:.2e} of themselves: {losses}")
    product = MatrixProduct(options.dtype)
    flops = stage1_flops(ours.teacher, ours.student, ours.teacher_variables, ours.variables, options.size)
    result: dict[str, Any] = {
        "trained_parameters": counted,
        "losses": losses,
        "losses_differ": off,
        "seconds_to_begin": time.perf_counter() - began,  # with all compilation
        "flops_per_image": flops,
        "product": f"{product.n}³ {options.dtype}",
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for _ in range(options.rounds):
        for name, side in sides.items():
            rates[name].append(options.steps * options.batch / timed(side, options.steps))
        peaks.append(product.count * product.flops / timed(product, product.count))
    shares = {
        name: [share_of_peak(rate, flops["step"], peak) for rate, peak in zip(rates[name], peaks, strict=True)]
        for name in sides
    }
    ratios = [a / b for a, b in zip(rates["ours"], rates["torch"], strict=True)]
    return result | {"rates": rates, "ratios": ratios, "peak_flops_per_second": peaks, "shares_of_peak": shares}


def measure_epochs(ours: Ours, options: argparse.Namespace) -> dict[str, Any]:
    """Run the loop for some epochs, the compiled step alone before each of them.

    Returns:
        For each epoch but the first its wall time without evaluation, the steps' share of it, and what is left.
    """
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch)
        source = open_images(workdir, options.data)
        steps_per_epoch = data.steps_per_epoch(source, options.batch)
        alone = ours.start(random_batch(options))
        marks: list[tuple[float, float]] = []  # when an epoch ended, when the next one may begin
        step_seconds: list[float] = []

        def evaluate(variables: Any) -> dict[str, float]:
            """Take the place of the evaluation: measures the step alone."""
            ended = time.perf_counter()
            time.sleep(0.5)  # the loader's threads fill their buffers, and rest
            count = max(4, steps_per_epoch // 3)
            step_seconds.append(timed(alone, count) / count)
            marks.append((ended, time.perf_counter()))
            return {"top1": 0.0, "top5": 0.0}

        def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
            chosen = base_config().dataset
            return data.train_batches(
                source, batch_size=options.batch, image_size=options.size, seed=0, start_step=start,
                workers=chosen.workers, worker_type=chosen.worker_type, crop_scale=tuple(chosen.crop_scale),
                flip=chosen.flip)  # fmt: skip

        plan = loop.Plan(steps_per_epoch, 0, ours.schedule, batches, evaluate)
        log, checkpoints = progress.RunLog(workdir), checkpoint.StageCheckpoints(workdir / "checkpoints")
        try:
            loop.run_stage(
                ours.stage,
                plan,
                step.initial_state(ours.stage, ours.variables, tx=ours.tx),
                train_step=ours.train_step,
                teacher_variables=sharding.put_replicated(ours.mesh, ours.teacher_variables),
                key=sharding.put_replicated(ours.mesh, jax.random.key(0)),
                mesh=ours.mesh,
                checkpoints=checkpoints,
                log=log,
                stop=loop.StopSignal(),
            )
        finally:
            checkpoints.close()
            log.close()
    rows = []
    for (before, after), ((_, began), (ended, _)), record in zip(
        itertools.pairwise(step_seconds), itertools.pairwise(marks), log.records[1:], strict=True
    ):
        wall, inside = ended - began, steps_per_epoch * (before + after) / 2
        looping = steps_per_epoch * options.batch / record["images_per_second"]
        rows.append({"seconds": wall, "in_steps": inside, "at_end": wall - looping, "outside": 1 - inside / wall})
    return {"steps": steps_per_epoch, "step_seconds": step_seconds, "epochs": rows}


def open_images(workdir: Path, chosen: str) -> data.Source:
    """Return the training images that `--data` names, or a folder of generated JPEGs."""
    if chosen == "digits":
        return data.open_source("digits", split="train")
    if not chosen:
        chosen = str(workdir / "images")
        make_images(Path(chosen))
    return data.open_source("folder", split="train", root=str(local_path(chosen)))


def make_images(root: Path) -> None:
    """Write random crops of scikit-learn's two photographs as ROOT/{train,val}/photo/*.jpg."""
    import cv2
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images  # two of 427 x 640
    for split, count in (("train", IMAGES), ("val", 1)):
        folder = root / split / "photo"
        folder.mkdir(parents=True)
        for index in range(count):
            side = int(rng.integers(IMAGE_SIZE, 428))
            top, left = rng.integers(428 - side), rng.integers(641 - side)
            crop = photographs[index % 2][top : top + side, left : left + side, ::-1]
            image = cv2.resize(crop, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / f"{index:04d}.jpg"), image)


def report_speed(speed: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the first part."""
    print(
        f"stage 1 of {options.model}, {options.size} px, batch {options.batch}, {options.dtype}: "
        f"{speed['trained_parameters']:,} trained parameters, losses agree to {speed['losses_differ']:.1e}"
    )
    for name, label in (("torch", f"PyTorch {options.torch}"), ("ours", "ours")):
        share = 100 * statistics.median(speed["shares_of_peak"][name])
        print(f"{label:<16} {spread(speed['rates'][name], '.1f')} images/s, {share:.1f} % of the matrix product's rate")
    print(f"{'ratio':<16} {spread(speed['ratios'], '.2f')}")
    peaks = [peak / 1e12 for peak in speed["peak_flops_per_second"]]
    print(
        f"{'matrix product':<16} {spread(peaks, '.2f')} TFLOP/s ({speed['product']}); "
        f"a step is {speed['flops_per_image']['step'] / 1e9:.2f} GFLOP an image"
    )


def spread(values: list[float], style: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):8{style}} ({min(values):{style}}..{max(values):{style}})"


def report_epochs(epoch: dict[str, Any]) -> None:
    """Print the second part."""
    rows = epoch["epochs"]
    if not rows:
        return
    outside = [100 * row["outside"] for row in rows]
    print(
        f"an epoch of {epoch['steps']} steps: {statistics.median(row['seconds'] for row in rows):.2f} s, "
        f"of which {statistics.median(row['in_steps'] for row in rows):.2f} s in the compiled step; "
        f"outside {statistics.median(outside):.1f} % ({min(outside):.1f}..{max(outside):.1f}), "
        f"of which {statistics.median(row['at_end'] for row in rows):.2f} s once at the epoch's end (checkpoint, log)"
    )


if __name__ == "__main__":
    sys.exit(main())
