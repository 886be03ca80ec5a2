"""Builds a TensorRT engine of a bundle's head or tail, on the machine that will run it.

    python -m export.tensorrt --bundle BUNDLE [--part head|tail] [--output FILE.plan] [--precision fp16|fp32]
                              [--batch MIN,OPT,MAX] [--overwrite]

An engine fits one GPU and one TensorRT, so no bundle carries one. This uses TensorRT's Python package where it is
installed, else trtexec, from PATH or from where JetPack puts it; where there is neither, it prints the line to run on
the Jetson and builds nothing. The head takes float32 images of 0 to 255 and gives the latent as float32, for the
caller to quantise as the manifest says, so that TensorRT 8.2 (the Jetson Nano's last) builds it; the tail takes uint8,
which needs TensorRT 10. TensorRT 11 has no fp16 switch any more: there it is --precision fp32.

Written from the documentation of TensorRT 8.2, 10 and 11, and tested against stand-ins that record what they are asked.
It was not run against a real TensorRT, and no engine's numbers were compared with the bundle's.

Exit codes: 0 an engine was built; 1 nothing was built, as there is no TensorRT here, and the line to run elsewhere was
printed; 2 something given cannot be used or TensorRT refused it (one line on standard error), and nothing was written.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_file

JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
UINT8_SINCE = (10, 0)  # as input and output of a network
POOLS_SINCE = (8, 4)  # from here on a builder may use all memory; before, next to none unless it is told
NO_FP16_SINCE = (11, 0)  # networks are strongly typed
WORKSPACE_MIB = 256  # before POOLS_SINCE; a Jetson Nano has 4 GiB for everything


@dataclass(frozen=True)
class Job:
    """What to build. `shape` is that of the tail's latent without the batch; `batch` is min, opt, max.

    The head has neither: its graph takes one image.
    """

    onnx: Path
    plan: Path
    part: str
    precision: str
    shape: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()


class NotBuiltError(Exception):
    """This machine has nothing that builds an engine; the message has the line to run where there is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        print(run(_job(read_bundle(args.bundle), args)))
    except UserError as error:
        return print_error(error)
    except NotBuiltError as error:
        print(error)
        return 1
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing, out of range or do not go together; an output that is in the way.
    """
    parser = Parser("export.tensorrt", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that python -m export.bundle wrote")
    parser.add_argument("--part", choices=("head", "tail"), default="head", help="what to build (head)")
    parser.add_argument("--output", type=Path, help="the engine; otherwise head.plan or tail.plan, here")
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="what to compute in (fp16)")
    parser.add_argument("--batch", type=_batch, metavar="MIN,OPT,MAX", help="of the tail (1,8,32)")
    parser.add_argument("--overwrite", action="store_true", help="replace --output where it exists")
    args = parser.parse_args(argv)
    args.output = args.output or Path(f"{args.part}.plan")
    if args.batch is not None and args.part == "head":
        raise UserError("--batch goes with --part tail: the head takes one image")
    if args.output.is_dir():
        raise UserError(f"{args.output} is a folder; --output is a file")
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output} exists: give another --output, or --overwrite to replace it")
    if not args.output.absolute().parent.is_dir():
        raise UserError(f"cannot write {args.output}: no folder {args.output.parent}")
    return args


def run(job: Job) -> str:
    """Build the engine with what this machine has, and return what to tell the user.

    Raises:
        NotBuiltError: it has neither TensorRT's Python package nor trtexec.
        UserError: TensorRT is too old or too new for the job, refuses the graph, or the engine cannot be written.
    """
    try:
        trt = importlib.import_module("tensorrt")  # not an import statement: this file has the same name
    except ImportError:
        trt = None
    if trt is not None:
        engine = build(trt, job)
        with atomic_file(job.plan, exclusive=True) as temporary:
            temporary.write_bytes(engine)
        return f"wrote {job.plan} with TensorRT {trt.__version__}"
    trtexec = shutil.which("trtexec") or shutil.which(JETPACK_TRTEXEC)
    if trtexec is not None:
        with atomic_file(job.plan, exclusive=True) as temporary:
            call(trtexec, job, temporary)
        return f"wrote {job.plan} with {trtexec}"
    needs = "TensorRT 10 or newer" if job.part == "tail" else "TensorRT 8.2 to 10"
    raise NotBuiltError(
        "nothing was built: this machine has neither TensorRT's Python package nor trtexec\n"
        f"on one with {needs}, such as a Jetson (where trtexec is {JETPACK_TRTEXEC}), run\n\n"
        f"    {shlex.join(trtexec_line('trtexec', job, job.plan))}"
    )


def build(trt: ModuleType, job: Job) -> bytes:
    """The serialised engine, by TensorRT's Python package `trt`: 8.2 and newer.

    Raises:
        UserError: as `run`.
    """
    version = _version(trt.__version__)
    check_version(version, job)
    logger = _error_collector(trt)
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:  # pybind11 raises TypeError where there is no CUDA device
        raise UserError(f"TensorRT {trt.__version__} does not start here: {_told(logger, error)}") from error
    explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if version < (10, 0) else 0
    network = builder.create_network(explicit)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(job.onnx.read_bytes()):
        logger.errors[:0] = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise UserError(f"TensorRT {trt.__version__} cannot read {job.onnx}: {_told(logger, 'it does not say why')}")
    config = builder.create_builder_config()
    if version < POOLS_SINCE:
        config.max_workspace_size = WORKSPACE_MIB << 20
    if job.precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if job.batch:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *((size, *job.shape) for size in job.batch))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(f"TensorRT {trt.__version__} cannot build {job.onnx}: {_told(logger, 'it does not say why')}")
    return bytes(plan)


def call(trtexec: str, job: Job, plan: Path) -> None:
    """Has `trtexec` build the engine into the file `plan`.

    Raises:
        UserError: as `run`.
    """
    try:
        banner = subprocess.run([trtexec, "--help"], capture_output=True, text=True, errors="replace", check=False)
        version = _trtexec_version(banner.stdout)
        if version is not None:
            check_version(version, job)
        line = trtexec_line(trtexec, job, plan, version=version)
        print(f"this takes minutes: {shlex.join(line)}", flush=True)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        with subprocess.Popen(line, **pipes) as process, interrupt.undone(process.kill):
            output, _ = process.communicate()
    except OSError as error:
        raise UserError(f"cannot run {trtexec}: {error.strerror}") from error
    if process.returncode != 0 or not plan.is_file():
        told = [text.split("[E]")[1].strip() for text in output.splitlines() if "[E]" in text]
        reason = "; ".join(told[:3]) or f"exit code {process.returncode}"
        raise UserError(f"{trtexec} cannot build {job.onnx}: {reason}")


def trtexec_line(trtexec: str, job: Job, plan: Path, *, version: tuple[int, int] | None = None) -> list[str]:
    """The command that builds `plan`; without a version, one that all of 8.2 to 10 take."""
    line = [trtexec, f"--onnx={job.onnx}", f"--saveEngine={plan}"]
    if job.precision == "fp16":
        line.append("--fp16")
    if version is not None and version < POOLS_SINCE:
        line.append(f"--workspace={WORKSPACE_MIB}")
    for name, size in zip(("min", "opt", "max"), job.batch, strict=False):
        line.append(f"--{name}Shapes=latent:{'x'.join(map(str, (size, *job.shape)))}")
    return line


def check_version(version: tuple[int, int], job: Job) -> None:
    """Raise UserError where a TensorRT of this (major, minor) version cannot do the job."""
    name = ".".join(map(str, version))
    if job.part == "tail" and version < UINT8_SINCE:
        raise UserError(f"this is TensorRT {name}; the tail takes uint8 latents, which needs 10 or newer")
    if job.precision == "fp16" and version >= NO_FP16_SINCE:
        raise UserError(
            f"this is TensorRT {name}, which takes the precision from the graph: --precision fp32 builds it"
        )


def _job(bundle: Bundle, args: argparse.Namespace) -> Job:
    manifest = bundle.manifest
    if args.part == "head":
        return Job(bundle.path(manifest.head.onnx), args.output, "head", args.precision)
    onnx = bundle.path(manifest.tail.onnx)
    return Job(onnx, args.output, "tail", args.precision, manifest.latent.shape, args.batch or (1, 8, 32))


def _batch(text: str) -> tuple[int, ...]:
    """Argparse's reader of MIN,OPT,MAX."""
    sizes = tuple(int(size) if size.isdecimal() else 0 for size in text.split(","))
    if len(sizes) != 3 or sizes[0] < 1 or tuple(sorted(sizes)) != sizes:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN,OPT,MAX, as 1,8,32")
    return sizes


def _version(text: str) -> tuple[int, int]:
    """(major, minor) of "8.2.1.8"."""
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def _trtexec_version(output: str) -> tuple[int, int] | None:
    """(major, minor) out of trtexec's first line: "[TensorRT v8201]" 8.2, "v101600" 10.16, "v11.1.0.106" 11.1."""
    found = re.search(r"\[TensorRT v(\d+)(\.\d+)?", output)
    if found is None:
        return None
    if found[2]:
        return int(found[1]), int(found[2][1:])
    number = int(found[1])
    unit = 10_000 if number >= 100_000 else 1_000
    return number // unit, number % unit // 100


def _error_collector(trt: ModuleType) -> Any:
    """A logger of TensorRT that keeps the errors, in `errors`, instead of printing."""

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 asks for this very call
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(msg)

    return Collector()


def _told(logger: Any, otherwise: object) -> str:
    """The first errors that TensorRT logged; they say more than what it raises or returns."""
    return "; ".join(logger.errors[:3]) or str(otherwise)


if __name__ == "__main__":
    command.run(main, extra="export")
