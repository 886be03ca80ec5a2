"""Checks that a bundle's heads and payloads are the same bits on an emulated Raspberry Pi 3, 4 and 5 as here.

    python -m benchmarks.check_arm64 --bundle bundles/digits --emulator ../shared/arm64
    python -m benchmarks.check_arm64 --bundle bundles/digits --emulator ../shared/arm64 --images FOLDER

`--emulator` (or ARM64_EMULATOR) is the folder with `setup.sh`, which builds an arm64 userland, and `run.sh`, which runs
a script in it; environment variables that they read, such as ARM64_CACHE, pass through. The emulated side runs
NumPy, `bottlefit_jax.edge.runtimes` and `bottlefit_jax.codec`, nothing else. ai-edge-litert must give the same bits as
here; tflite-runtime the same bits of a float head, and integers at most one step away of an int8 head. Payloads of
latents that this machine makes, at every rate of the bundle, must be the same bytes and decode to the same latents. The
emulator says nothing about speed. The exit code is 1 where something differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import parse_rates
from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from bottlefit_jax.paths import local_path

BOARDS = ("pi3", "pi4", "pi5")
SITES = {"litert": "ai-edge-litert", "tflr": "tflite-runtime"}
IMAGES = 4
LATENTS, PAYLOADS = "latents.npy", "payloads.npy"
ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> int:
    """Run the check, print it as a table, and return the exit code."""
    parser = argparse.ArgumentParser(description="The heads of a bundle on emulated Raspberry Pis, bit for bit.")
    parser.add_argument("--bundle", type=local_path, help="a folder with head*.tflite")
    parser.add_argument("--emulator", default=os.environ.get("ARM64_EMULATOR", ""), help="with setup.sh and run.sh")
    parser.add_argument("--images", type=local_path, help=f"a folder of images; default: {IMAGES} of noise")
    parser.add_argument("--boards", nargs="+", default=BOARDS, choices=BOARDS)
    parser.add_argument("--answer", nargs=2, metavar=("IN", "OUT"), help=argparse.SUPPRESS)  # the emulated side
    options = parser.parse_args(argv)
    try:
        if options.answer:
            answer(*map(Path, options.answer))
            return 0
        if not options.bundle or not (Path(options.emulator) / "run.sh").is_file() or not options.emulator:
            raise UserError("give --bundle FOLDER, and --emulator FOLDER with setup.sh and run.sh in it")
        return check(options.bundle, Path(options.emulator), options.images, options.boards)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def check(bundle: Path, emulator: Path, images: Path | None, boards: Sequence[str]) -> int:
    """Compare every head on every board with this machine; return the exit code."""
    heads = sorted(bundle.glob("head*.tflite"))
    if not heads:
        raise UserError(f"{bundle} has no head*.tflite; give the folder of a bundle")
    run([emulator / "setup.sh"])
    different = False
    with tempfile.TemporaryDirectory() as scratch:
        given, here = Path(scratch, "given"), Path(scratch, "here")
        given.mkdir()
        for head in heads:
            (given / head.name).write_bytes(head.read_bytes())
            np.save(given / f"{head.stem}.npy", read_images(images, Interpreter(head).input_shape))
        rates = bundle / "rates.json"
        if rates.exists():
            (given / rates.name).write_bytes(rates.read_bytes())
            np.save(given / LATENTS, latents_of(rates))
        answer(given, here)
        print(f"{'board':<6} {'interpreter':<16} {'head':<22} {'largest difference':>20} {'values that differ':>20}")
        for board in boards:
            for site, package in SITES.items():
                there = Path(scratch, f"{board}-{site}")
                environment = {"ARM64_BOARD": board, "ARM64_SITE": site, "PYTHONPATH": str(ROOT)}
                run([emulator / "run.sh", Path(__file__).resolve(), "--answer", given, there], environment)
                for head in heads:
                    name = f"{head.stem}.npy"
                    difference, line = compare(np.load(here / name), np.load(there / name))
                    allowed = 1 if site == "tflr" and np.load(here / name).dtype == np.uint8 else 0
                    verdict = "" if difference <= allowed else "  DIFFERENT"
                    different |= difference > allowed
                    print(f"{board:<6} {package:<16} {head.name:<22} {line}{verdict}", flush=True)
                if rates.exists():
                    difference, line = compare(np.load(here / PAYLOADS), np.load(there / PAYLOADS))
                    different |= difference > 0
                    print(f"{board:<6} {package:<16} {rates.name:<22} {line}", flush=True)
    return int(different)


def compare(want: np.ndarray, got: np.ndarray) -> tuple[float, str]:
    """Return the largest difference, infinite for another shape, type or NaN, and two columns of the table."""
    if want.shape != got.shape or want.dtype != got.dtype:
        return np.inf, f"{got.dtype} {got.shape} instead of {want.dtype} {want.shape}"
    differs = want.view(np.uint8).reshape(*want.shape, -1) != got.view(np.uint8).reshape(*want.shape, -1)
    share = float(differs.any(-1).mean())
    distance = np.abs(want.astype(np.float64) - got.astype(np.float64))
    largest = float(np.nan_to_num(distance, nan=np.inf).max()) if share else 0.0
    largest = largest or (np.finfo(np.float64).tiny if share else 0.0)  # other bits of the same number: 0 and -0
    return largest, f"{'same bits' if not share else f'{largest:.3g}':>20} {100 * share:>18.3f} %"


def read_images(folder: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return a few images, `[N, *shape]` uint8."""
    if not folder:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (IMAGES, *shape), np.uint8)
        return np.concatenate([noise[1:], np.full((1, *shape), 255, np.uint8)])
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise UserError(f"{folder} has no .jpg or .png in it")
    size = (shape[1], shape[0])
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize(size)) for path in paths[:IMAGES]])


def answer(given: Path, out: Path) -> None:
    """Write the latents of every head in `given`, `[N, h, w, c]` under its name, to the new folder `out`."""
    out.mkdir()
    for head in sorted(given.glob("*.tflite")):
        interpreter = Interpreter(head)
        np.save(
            out / f"{head.stem}.npy", np.stack([interpreter.run(one) for one in np.load(given / f"{head.stem}.npy")])
        )

    if (given / LATENTS).exists():
        np.save(out / PAYLOADS, payloads_of(given / "rates.json", np.load(given / LATENTS)))


def latents_of(rates: Path) -> np.ndarray:
    """Return latents of every kind for the rates of a file, [3 * IMAGES, h, w, c] uint8: flat, smooth and noise."""
    shape = parse_rates(rates.read_text(), str(rates)).shape
    random = np.random.default_rng(0)
    steps = random.integers(-3, 4, (IMAGES, *shape)).cumsum(1).cumsum(2)
    flat = np.broadcast_to(random.integers(0, 256, (IMAGES, 1, 1, shape[2])), (IMAGES, *shape))
    noise = random.integers(0, 256, (IMAGES, *shape))
    return np.concatenate([flat, 128 + steps, noise]).clip(0, 255).astype(np.uint8)


def payloads_of(rates: Path, latents: np.ndarray) -> np.ndarray:
    """Return the payloads of latents at every rate, each with what it decodes to, as bytes one after another."""
    ours = parse_rates(rates.read_text(), str(rates))
    parts = []
    for rate in ours.rates:
        payloads = [wire.encode(latent, rate) for latent in latents]
        received, problems = wire.decode_batch(payloads, ours)
        assert not any(problems), problems
        parts += [*payloads, received.tobytes()]
    return np.frombuffer(b"".join(parts), np.uint8)


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
    """Run one of the emulator's scripts."""
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UserError(f"{command[0]} failed with exit code {done.returncode}: {last}")


if __name__ == "__main__":
    sys.exit(main())
