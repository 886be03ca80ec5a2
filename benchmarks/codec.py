"""Bytes and times of payloads, beside zlib and zstd on the same latents.

    python -m benchmarks.codec --run RUN [--image-size PX] [--steps 1,4,16]

The latents are those of a finished run's encoder; --latents FILE.npz gives others, as `train` and `val`, uint8
[N, h, w, c], and `zp`, the zero point. Tables are made of `train`; bytes and times are those of `val`, on one core.
Entropy is that of each channel's symbols over `val`, without contexts. zlib and zstd get the symbols channel by
channel; zstd (the package zstandard, where it is installed) also with a dictionary of `train`. Times are medians of
calls in turns.
"""

import argparse
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bottlefit_jax.codec import wire
from bottlefit_jax.codec.fit import fit_rate
from bottlefit_jax.codec.rate import symbols_of
from bottlefit_jax.codec.rates import Rates, make_rates, rates_text
from bottlefit_jax.errors import UserError

BATCH, TURNS = 32, 40
DICTIONARY = 16 << 10  # bytes


def main() -> int:
    """Print a table for each step."""
    args = _parse()
    train, val, zero_point = _latents(args)
    shape = train.shape[1:]
    print(f"latent {' x '.join(map(str, shape))}, {len(train):,} training and {len(val):,} measured")
    print(
        f"{'step':>4} {'coder':<18} {'bytes':>8} {'/ entropy':>9} {'encode ms':>9} {'decode ms':>9} {'of 32, each':>11}"
    )
    for step in args.steps:
        rate = fit_rate(train, (step,) * shape[2], zero_point=zero_point, id="rate")
        rates = make_rates([rate], head="", shape=shape)
        symbols = [symbols_of(step, zero_point)[each] for each in (train, val)]
        entropy = entropy_bytes(symbols[1])
        print(f"{step:>4} {'static entropy':<18} {entropy:>8.1f} {1:>9.3f}")
        coders = {"payload": (*_ours(rates), val)}
        coders |= {name: (*pair, symbols[1]) for name, pair in _others(symbols[0], shape).items()}
        for name, (encode, decode, inputs) in coders.items():
            sizes = [len(encode(each)) for each in inputs]
            encode_ms, decode_ms = _times(encode, decode, inputs)
            batch = f"{_batch_ms(rates, val):>11.3f}" if name == "payload" else ""
            size = np.mean(sizes)
            print(
                f"{step:>4} {name:<18} {size:>8.1f} {size / entropy:>9.3f} {encode_ms:>9.3f} {decode_ms:>9.3f} {batch}"
            )
        print(f"{'':>4} tables: {len(rates_text(rates)):,} bytes, {len(rate.groups)} groups, {rate.lanes} lanes")
    return 0


def entropy_bytes(symbols: np.ndarray) -> float:
    """Return the bytes of a latent [N, h, w, c] whose channels have each the best code without contexts."""
    bits = 0.0
    for channel in symbols.reshape(-1, symbols.shape[-1]).T:
        shares = np.bincount(channel) / len(channel)
        bits -= float((shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    return bits * symbols.shape[1] * symbols.shape[2] / 8


def _ours(rates: Rates) -> tuple[Callable, Callable]:
    return lambda latent: wire.encode(latent, rates.rates[0]), lambda data: wire.decode(data, rates)


def _others(train: np.ndarray, shape: tuple[int, ...]) -> dict[str, tuple[Callable, Callable]]:
    """Return (encode, decode) of each other coder, on symbols [h, w, c]."""

    def planes(symbols: np.ndarray) -> bytes:
        return symbols.transpose(2, 0, 1).tobytes()

    def back(data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.uint8).reshape(shape[2], *shape[:2]).transpose(1, 2, 0)

    coders = {"zlib 9": (lambda x: zlib.compress(planes(x), 9), lambda data: back(zlib.decompress(data)))}
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError:
        return coders
    plain, reader = zstandard.ZstdCompressor(19), zstandard.ZstdDecompressor()
    coders["zstd 19"] = (lambda x: plain.compress(planes(x)), lambda data: back(reader.decompress(data)))
    words = zstandard.train_dictionary(DICTIONARY, [planes(each) for each in train])
    trained, trained_reader = zstandard.ZstdCompressor(19, words), zstandard.ZstdDecompressor(words)
    coders["zstd, dictionary"] = (
        lambda x: trained.compress(planes(x)),
        lambda data: back(trained_reader.decompress(data)),
    )
    return coders


def _times(encode: Callable, decode: Callable, inputs: np.ndarray) -> tuple[float, float]:
    """Return the median milliseconds of encoding and decoding, in turns."""
    encoding, decoding = [], []
    for turn in range(TURNS):
        latent = inputs[turn % len(inputs)]
        start = time.perf_counter()
        data = encode(latent)
        between = time.perf_counter()
        decode(data)
        encoding.append(between - start)
        decoding.append(time.perf_counter() - between)
    return 1e3 * float(np.median(encoding)), 1e3 * float(np.median(decoding))


def _batch_ms(rates: Rates, inputs: np.ndarray) -> float:
    """Return the median milliseconds for each of BATCH payloads that are decoded together."""
    payloads = [wire.encode(inputs[index % len(inputs)], rates.rates[0]) for index in range(BATCH)]
    seconds = []
    for _ in range(TURNS // 4):
        start = time.perf_counter()
        wire.decode_batch(payloads, rates)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds)) / BATCH


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--latents", type=Path, help="an .npz with train, val and zp")
    source.add_argument("--run", type=Path, help="a finished run with a student")
    parser.add_argument("--image-size", type=int, help="with --run: other than the run's")
    parser.add_argument("--images", type=int, default=600, help="with --run: of training (600); a third is measured")
    parser.add_argument("--steps", default="1,2,4,8,12,16,24,32", help="of all channels")
    args = parser.parse_args()
    args.steps = [int(step) for step in args.steps.split(",")]
    return args


def _latents(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, int]:
    if args.latents is not None:
        with np.load(args.latents, allow_pickle=False) as file:
            return file["train"], file["val"], int(file["zp"])
    import dataclasses

    from bottlefit_jax.codec.quantizer import quantize, static_range
    from export import parity
    from export.images import read_images
    from export.latent_range import latent_range
    from export.student import read_student

    student = read_student(args.run)
    if args.image_size:
        student = dataclasses.replace(student, image_size=args.image_size)
    reference = parity.create_reference(student)
    sets = [
        read_images(student, "train", limit=args.images),
        read_images(student, "val", limit=max(1, args.images // 3)),
    ]
    affine = static_range(*map(np.float32, latent_range(student, reference.encode, sets[0])), bits=8)
    train, val = (
        np.concatenate(
            [quantize(np.asarray(reference.encode(batch), np.float32), affine) for batch in each.batches(32)]
        )
        for each in sets
    )
    return train, val, int(affine.zero_point)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
