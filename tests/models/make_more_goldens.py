"""Writes more.npz: logits and features that PyTorch's models compute, so that the tests need no torch.

    git clone https://github.com/yoshitomo-matsubara/bottlefit-split_computing reference
    python tests/models/make_more_goldens.py reference/custom/model.py

Run on torch 2.13.0 (CPU), torchvision 0.28.0, torchdistill 0.3.2 (installed with --no-deps), NumPy 2.4.6 and the
reference at 4651265518576045b707e902275e1199bc131c13. Half a minute on two cores.

Weights, inputs, float64 results, `stats` and `proj` are those of tests/goldens/README.md. What is in the file:

    manifest                 JSON: `made_with`; `models`, each with the arguments of `models.create` and what the draw
                             of its weights needs; `cases`, each with its model, its input, its features under our
                             names with their NCHW shapes, and `errors`: of each array the rms, and the maximum of
                             |torch float32 - torch float64| of the array and of its projections
    <case>/logits            (2, 1000) float32; <case>/aux_logits likewise, where there are some
    <case>/stats             (features, 5) float64: mean, deviation, min, max, max of the absolute value
    <case>/proj              (features, 4) float64
    <case>/channel_mean      float32, one feature after the other, of those with at most CHANNELS channels

A case's arrays follow the order of its features. The other numbers of a case follow from its model's seed: the
input's is one more, the projections' two more.
"""

import argparse
import hashlib
import importlib.util
import json
import pathlib
import re
import sys
import types
from collections.abc import Callable

import numpy as np
import torch
import torchvision

OUT = pathlib.Path(__file__).parents[1] / "goldens" / "more.npz"
CHANNELS = 512
DAMPED = ((r".*\.bn3\.weight", 0.2), (r"features\.\d+\.conv\.3\.weight", 0.7))

# Modules whose output has no spatial axes, or is none of our features.
NOT_IMAGES = ("", "features", "avgpool", "adaptive_avgpool", "dropout", "flatten", "fc", "classifier", "AuxLogits")
STUDENT_PATHS = {"bottleneck.encoder": "latent", "bottleneck": "decoded"}

SEED = 5000  # of the first model; the next has 10 more
TEACHERS = {
    **{f"resnet{depth}": (64,) for depth in (34, 50, 101, 152)},
    **{f"densenet{depth}": (64,) for depth in (169, 201)},
    "densenet121": (64, 224),
    "resnet18": (64, 97),
    "mobilenet_v2": (97,),
}
# With the auxiliary classifier in training mode the image is larger: at 347 pixels its last batch norm has two by
# two for each image, and so statistics of more than the two images.
INCEPTIONS = {
    "inception_v3": ({}, (139, 299)),
    "inception_v3_transform": ({"transform_input": True}, (139,)),
    "inception_v3_without": ({"aux_logits": False}, (75,)),
    "inception_v3_auxiliary": ({}, (347,)),
}
# Channels of the latent, version, the layers that are the encoder, sizes.
STUDENTS = {
    "densenet169": ((3, 2, 7, (64,)), (9, 2, 7, (64,))),
    "densenet201": ((6, 2, 7, (64,)),),
    "resnet152": ((12, 1, 4, (64,)), (12, 2, 7, (64,)), (12, 3, 10, (64, 224)), (1, 2, 7, (64,))),
}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reference", type=pathlib.Path, help="custom/model.py of the BottleFit reference")
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    students = load_students(args.reference)

    models, cases, arrays = {}, {}, {}
    for number, (model, (ours, builder, options, sizes)) in enumerate(plans(students).items()):
        for size in sizes:
            network = builder(weights=None, **options)
            models[model] = {"create": ours, **draw(network, SEED + 10 * number)}
            cases[f"{model}_s{size}"], made = measure(network, model, models[model]["seed"], size)
            arrays.update({f"{model}_s{size}/{name}": value for name, value in made.items()})
            print(model, size, cases[f"{model}_s{size}"]["errors"]["logits"], flush=True)

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__}
    manifest = {"made_with": versions, "channels": CHANNELS, "models": models, "cases": cases}
    text = np.frombuffer(json.dumps(manifest, separators=(",", ":")).encode(), np.uint8)
    np.savez_compressed(args.out, manifest=text, **arrays)


def plans(students: dict) -> dict:
    """Model -> (arguments of our `create`, the reference's builder, the builder's arguments, sizes)."""
    teacher = torchvision.models.get_model_builder
    made = {name: ({"name": name}, teacher(name), {}, sizes) for name, sizes in TEACHERS.items()}
    for variant, (options, sizes) in INCEPTIONS.items():
        given = {"init_weights": False, **options}
        made[variant] = ({"name": "inception_v3", **options}, teacher("inception_v3"), given, sizes)
    for name, rows in STUDENTS.items():
        for channels, version, index, sizes in rows:
            ours = {"name": name, "bottleneck": {"channels": channels, "version": version, "bits": None}}
            given = {"bottleneck_channel": channels, "bottleneck_idx": index}
            if name == "resnet152":
                given["bottleneck_ver"] = str(version)
            made[f"custom_{name}_{channels}ch_ver{version}"] = (ours, students[f"custom_{name}"], given, sizes)
    return made


def load_students(path: pathlib.Path) -> dict:
    """The reference's student builders by name."""
    # What torchdistill 0.3.2 imports for detection is no longer in torchvision.
    sys.modules["torchdistill.models.custom.bottleneck.detection"] = types.ModuleType("detection")
    spec = importlib.util.spec_from_file_location("reference", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # its ResNet registers over torchdistill's
    from torchdistill.models.registry import MODEL_FUNC_DICT

    return MODEL_FUNC_DICT


def draw(network: torch.nn.Module, seed: int) -> dict:
    """Draw the network's weights in place; what is needed to draw them again."""
    modules = dict(network.named_modules())
    generator, digest, drawn, keys = np.random.Generator(np.random.PCG64(seed)), hashlib.sha256(), {}, []
    for key, old in network.state_dict().items():
        path, _, leaf = key.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        kind, shape = modules[path], tuple(old.shape)
        if isinstance(kind, torch.nn.BatchNorm2d):
            if leaf in ("weight", "running_var"):
                value = generator.uniform(0.5, 1.5, shape)
            else:
                value = generator.standard_normal(shape) * 0.1
            for pattern, factor in DAMPED:
                if re.fullmatch(pattern, key):
                    value = value * factor
        elif leaf == "bias":
            value = generator.standard_normal(shape) * 0.01
        else:
            transposed = isinstance(kind, torch.nn.ConvTranspose2d)
            inputs = shape[0] * shape[2] * shape[3] if transposed else np.prod(shape[1:])
            value = generator.standard_normal(shape) * np.sqrt(2 / inputs)
        value = value.astype("<f4")
        digest.update(value.tobytes())
        drawn[key] = torch.from_numpy(value)
        keys.append([key, list(shape)])
    problems = network.load_state_dict(drawn, strict=False)
    assert not problems.unexpected_keys, problems.unexpected_keys
    assert all(key.endswith(".num_batches_tracked") for key in problems.missing_keys), problems.missing_keys
    transposed = [f"{path}.weight" for path, kind in modules.items() if isinstance(kind, torch.nn.ConvTranspose2d)]
    return {"seed": seed, "conv_transpose": transposed, "weights_sha256": digest.hexdigest(), "keys": keys}


def measure(
    network: torch.nn.Module, model: str, seed: int, size: int, run_once: Callable | None = None
) -> tuple[dict, dict]:
    """A case's entry in the manifest and its arrays; `run_once` is `run`, or what does the same for other networks."""
    compute = run_once or run
    shape = (2, 3, size, size)
    x = np.random.Generator(np.random.PCG64(seed + 1)).standard_normal(shape).astype(np.float32)
    network.eval()
    if model.endswith("_auxiliary"):
        network.training = True  # of the network itself: it then calls its auxiliary classifier
        network.AuxLogits.train()
    narrow = compute(network, torch.from_numpy(x))
    wide = compute(network.double(), torch.from_numpy(x).double())
    features, errors = {}, {}
    stats, proj, means, made = [], [], [], {}
    for name, f in wide.items():
        error = f - narrow[name]
        errors[name] = [rounded(np.sqrt(np.square(f).mean())), rounded(np.abs(error).max())]
        if f.ndim == 2:
            made[name] = f.astype(np.float32)
            continue
        features[name] = list(f.shape)
        v = np.random.Generator(np.random.PCG64(seed + 2)).standard_normal((4, f.size)) / np.sqrt(f.size)
        errors[name].append(rounded(np.abs(v @ error.reshape(-1)).max()))
        stats.append([f.mean(), f.std(), f.min(), f.max(), np.abs(f).max()])
        proj.append(v @ f.reshape(-1))
        if f.shape[1] <= CHANNELS:
            means.append(f.mean((0, 2, 3)))
    made.update(stats=np.array(stats), proj=np.array(proj), channel_mean=np.concatenate(means).astype(np.float32))
    entry = {"model": model, "input_seed": seed + 1, "input_shape": shape, "proj_seed": seed + 2}
    return {**entry, "features": features, "errors": errors}, made


def run(network: torch.nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Everything that ours returns too, under our names, in float64."""
    seen, handles = {}, []

    def keep(name: str) -> Callable:
        return lambda module, inputs, output: seen.update({name: output.double().numpy(force=True).copy()})

    for path, module in network.named_modules():
        if name := feature_name(path):
            handles.append(module.register_forward_hook(keep(name)))
    with torch.inference_mode():
        out = network(x)
    for handle in handles:
        handle.remove()
    if hasattr(network, "adaptive_avgpool"):
        del seen["relu"]  # the DenseNet students' only one, after norm5
    outputs = out._asdict() if isinstance(out, tuple) else {"logits": out}
    named = {name: value.double().numpy() for name, value in outputs.items()}
    return {**seen, **named}


def feature_name(path: str) -> str | None:
    """Our name of what the module at `path` returns; None: we do not return it."""
    path = re.sub(r"^features\.(?=\d)", "features", path).removeprefix("features.")
    if path in STUDENT_PATHS:
        return STUDENT_PATHS[path]
    return None if "." in path or path in NOT_IMAGES else path


def rounded(value: float) -> float:
    """Three digits, which is all that a tolerance needs."""
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
