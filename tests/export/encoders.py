"""Students whose encoders have random weights and batch statistics, made without `init`."""

import numpy as np

from bottlefit_jax import models

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DESIGNS = {
    "resnet v1": ("resnet50", {"version": 1, "channels": 6}),
    "resnet v2": ("resnet152", {"version": 2, "channels": 12}),
    "resnet v3": ("resnet18", {"version": 3, "channels": 3}),
    "densenet": ("densenet169", {"channels": 5}),
    "mobilenet": ("mobilenet_v2", {"channels": 4}),
    "inception": ("inception_v3", {"channels": 2}),
    "patch": ("resnet50", {"channels": 6, "design": "patch"}),
}


def student(design="resnet v2", *, seed=0, channels=None):
    """A student and its encoder's variables; a third of the batch norms' scales are negative."""
    name, bottleneck = DESIGNS[design]
    module = models.create(name, bottleneck=bottleneck | ({"channels": channels} if channels else {}))
    return module, encoder_variables(module, seed=seed)


def encoder_variables(module, *, seed=0):
    rng = np.random.default_rng(seed)
    params, stats, width = {}, {}, 3
    for number, layer in enumerate(module.design.encoder):
        if layer.kind in ("conv", "depthwise"):
            shape = (layer.kernel, layer.kernel, width if layer.kind == "conv" else 1, int(layer.width))
            params[str(number)] = {"kernel": rng.normal(0, np.prod(shape[:3]) ** -0.5, shape)}
            width = shape[-1]
        elif layer.kind == "norm":
            scale = rng.uniform(0.5, 1.5, width) * rng.choice([1, 1, -1], width)
            params[str(number)] = {"scale": scale, "bias": rng.normal(0, 0.3, width)}
            stats[str(number)] = {"mean": rng.normal(0, 0.3, width), "var": rng.uniform(0.5, 1.5, width)}
    return _float32({"params": {"encoder": params}, "batch_stats": {"encoder": stats}})


def _float32(tree):
    if isinstance(tree, dict):
        return {key: _float32(value) for key, value in tree.items()}
    return np.asarray(tree, np.float32)


def random_images(count, size, *, seed=0):
    """Smooth noise over the whole range, `[count, h, w, 3]` uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-60, 315, (count, -(-size[0] // 8), -(-size[1] // 8), 3)).repeat(8, 1).repeat(8, 2)
    noisy = coarse[:, : size[0], : size[1]] + rng.normal(0, 12, (count, *size, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def relative(values, expected):
    """The largest difference, relative to the largest expected value."""
    assert values.shape == expected.shape
    return float(np.abs(values - expected).max() / np.abs(expected).max())
