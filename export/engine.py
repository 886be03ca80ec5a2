"""Builds TensorRT engines, with TensorRT's Python package or with trtexec. No JAX: this runs on a Jetson."""

import importlib
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax import interrupt
from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_file
from bottlefit_jax.tensorrt_engine import POOLS_SINCE, WORKSPACE_MIB, Job, build_with_package, check_version

JETPACK_TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


DEFAULT_BATCH = (1, 8, 32)
PARTS = ("head", "tail")
PRECISIONS = ("fp16", "fp32")


@dataclass(frozen=True)
class EngineOptions:
    """What to build and where to. Messages call a field as `python -m export.tensorrt` calls its flag.

    Attributes:
        bundle: folder that `python -m export.bundle` wrote.
        part: head or tail.
        output: the engine; None: head.plan or tail.plan in the working directory.
        precision: what the engine computes in: fp16 or fp32.
        batch: (min, opt, max) latents that the tail takes at once; None: (1, 8, 32). The head takes one image.
        overwrite: replace the output.

    Raises:
        UserError: a value is out of range, or `batch` is given for a head.
    """

    bundle: Path
    part: str = "head"
    output: Path | None = None
    precision: str = "fp16"
    batch: tuple[int, int, int] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for flag, known in (("part", PARTS), ("precision", PRECISIONS)):
            if getattr(self, flag) not in known:
                raise UserError(f"--{flag} is {getattr(self, flag)!r}; it must be {' or '.join(known)}")
        if self.batch is not None and self.part == "head":
            raise UserError("--batch goes with --part tail: the head takes one image")
        sizes = self.batch or DEFAULT_BATCH
        if len(sizes) != 3 or sizes[0] < 1 or list(sizes) != sorted(sizes):
            raise UserError(f"--batch is {','.join(map(str, sizes))}; it must be MIN,OPT,MAX from 1 up, as 1,8,32")

    @property
    def plan(self) -> Path:
        """Where the engine goes."""
        return self.output or Path(f"{self.part}.plan")

    def check_output(self) -> None:
        """Raise UserError if the engine cannot be written."""
        if self.plan.is_dir():
            raise UserError(f"{self.plan} is a folder; --output is a file")
        if self.plan.exists() and not self.overwrite:
            raise UserError(f"{self.plan} exists: give another --output, or --overwrite to replace it")
        if not self.plan.absolute().parent.is_dir():
            raise UserError(f"cannot write {self.plan}: no folder {self.plan.parent}")


class NotBuiltError(Exception):
    """Raised if nothing can build an engine here; the message has the line to run on a machine with TensorRT."""


def build_engine(options: EngineOptions) -> str:
    """Build an engine with the TensorRT of this machine.

    Args:
        options: what to build and where to.

    Returns:
        Which file was written, and with what.

    Raises:
        NotBuiltError: the machine has neither TensorRT's Python package nor trtexec.
        UserError: the bundle or the output is invalid, or TensorRT is too old or too new, or refuses the graph.
    """
    options.check_output()
    job = _job(read_bundle(options.bundle), options)
    try:
        trt = importlib.import_module("tensorrt")  # not an import statement: it is not among our dependencies
    except ImportError:
        trt = None
    if trt is not None:
        engine = build_with_package(trt, job)
        with atomic_file(job.plan, exclusive=True) as temporary:
            temporary.write_bytes(engine)
        return f"wrote {job.plan} with TensorRT {trt.__version__}"
    trtexec = shutil.which("trtexec") or shutil.which(JETPACK_TRTEXEC)
    if trtexec is not None:
        with atomic_file(job.plan, exclusive=True) as temporary:
            build_with_trtexec(trtexec, job, temporary)
        return f"wrote {job.plan} with {trtexec}"
    needs = "TensorRT 10 or newer" if job.part == "tail" else "TensorRT 8.2 to 10"
    raise NotBuiltError(
        "nothing was built: this machine has neither TensorRT's Python package nor trtexec\n"
        f"on one with {needs}, such as a Jetson (where trtexec is {JETPACK_TRTEXEC}), run\n\n"
        f"    {shlex.join(trtexec_line('trtexec', job, job.plan))}"
    )


def build_with_trtexec(trtexec: str, job: Job, plan: Path) -> None:
    """Build the engine into the file `plan` with the program `trtexec`.

    Raises:
        UserError: trtexec is too old or too new for the job, cannot run, or refuses the graph.
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
        errors = [text.split("[E]")[1].strip() for text in output.splitlines() if "[E]" in text]
        reason = "; ".join(errors[:3]) or f"exit code {process.returncode}"
        raise UserError(f"{trtexec} cannot build {job.onnx}: {reason}")


def trtexec_line(trtexec: str, job: Job, plan: Path, *, version: tuple[int, int] | None = None) -> list[str]:
    """Return the command that builds `plan`; without a version, one that all of 8.2 to 10 accept."""
    line = [trtexec, f"--onnx={job.onnx}", f"--saveEngine={plan}"]
    if job.precision == "fp16":
        line.append("--fp16")
    if version is not None and version < POOLS_SINCE:
        line.append(f"--workspace={WORKSPACE_MIB}")
    for name, size in zip(("min", "opt", "max"), job.batch, strict=False):
        line.append(f"--{name}Shapes=latent:{'x'.join(map(str, (size, *job.shape)))}")
    return line


def _job(bundle: Bundle, options: EngineOptions) -> Job:
    manifest = bundle.manifest
    if options.part == "head":
        return Job(bundle.path(manifest.head_file("onnx").file), options.plan, "head", options.precision)
    onnx, batch = bundle.path(manifest.tail.onnx), options.batch or DEFAULT_BATCH
    return Job(onnx, options.plan, "tail", options.precision, manifest.latent.shape, batch)


def _trtexec_version(output: str) -> tuple[int, int] | None:
    """Find (major, minor) in trtexec's first line: 8.2 of "[TensorRT v8201]", 10.16 of "v101600", 11.1 of "v11.1.0"."""
    match = re.search(r"\[TensorRT v(\d+)(\.\d+)?", output)
    if match is None:
        return None
    if match[2]:
        return int(match[1]), int(match[2][1:])
    number = int(match[1])
    unit = 10_000 if number >= 100_000 else 1_000
    return number // unit, number % unit // 100
