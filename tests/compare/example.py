"""A comparison as it comes out of a real run, in miniature or with everything in it."""

TEACHER = 85.1


def row(method, title, setting="", *, top1, std=None, sent, ms=(0.3, 2.2), trained=True, rate=None):
    """A measured row."""
    return {
        "method": method,
        "title": title,
        "setting": setting,
        "trained": trained,
        "rate": rate,
        "top1": {"mean": top1, "std": std},
        "top5": {"mean": 98.0, "std": None if std is None else std / 2},
        "drop_points": round(TEACHER - top1, 6),
        "bytes": {"mean": sent, "p95": 1.25 * sent},
        "params": 12345,
        "macs": 18_000_000,
        "ms": {"device": ms[0], "server": ms[1]},
        "seeds": [
            {"seed": seed if trained else None, "top1": top1, "top5": 98.0} for seed in range(3 if trained else 1)
        ],
        "error": None,
    }


def failed(method, title, setting, error):
    """A row of a method that could not be measured."""
    nothing = dict.fromkeys(("top1", "top5", "drop_points", "bytes", "params", "macs", "ms"))
    return {
        "method": method,
        "title": title,
        "setting": setting,
        "trained": False,
        "rate": None,
        **nothing,
        "seeds": [],
        "error": error,
    }


def comparison(*rows):
    """A comparison of rows."""
    return {
        "dataset": "imagenette160",
        "images": 3925,
        "image_size": 64,
        "teacher": {"name": "resnet18", "top1": TEACHER, "top5": 98.7},
        "jpeg95_bytes": 2968.2,
        "device_slower": 1.0,
        "seeds": [0, 1, 2],
        "rows": list(rows),
        "curves": [],
        "same_bytes": {"bytes": [], "groups": []},
        "notes": ["SPINN sends nothing where its exit is sure."],
        "versions": {"python": "3.11.7", "device": "cpu"},
    }


def local():
    return row("local", "local", top1=TEACHER, sent=0, ms=(2.4, 0.0), trained=False)


def codec(method, title, *points):
    """A codec's curve of (quality, top-1, bytes)."""
    return [row(method, title, f"quality {q}", top1=top1, sent=sent, trained=False) for q, top1, sent in points]


def everything():
    """All twelve methods; seven of them send almost the same."""
    same = [("vanilla", 80.9, 656), ("kd", 81.6, 656), ("hnd", 82.9, 656), ("ghnd", 84.1, 656)]
    same += [("bottlefit-patch", 84.2, 632), ("cr-bq", 79.2, 640), ("autoencoder", 81.2, 648)]
    return comparison(
        local(),
        *codec("jpeg", "JPEG", (5, 15.3, 690), (10, 41.2, 780), (50, 78.1, 1270), (90, 84.6, 2350), (95, 85.0, 2968)),
        *codec("webp", "WebP", (5, 60.3, 420), (20, 74.2, 660), (80, 84.0, 1500), (95, 84.9, 2600)),
        *[row(method, method, "8 channels", top1=top1, std=0.4, sent=sent) for method, top1, sent in same],
        *[
            row("bottlefit", "BottleFit", f"{channels} channels", top1=top1, std=0.18, sent=sent)
            for channels, top1, sent in [(3, 82.8, 252), (8, 84.7, 656), (12, 84.95, 974)]
        ],
        *[
            row("spinn", "SPINN", f"threshold {threshold}", top1=top1, std=0.3, sent=sent)
            for threshold, top1, sent in [(0.5, 69.3, 0), (0.6, 74.0, 300), (0.8, 80.3, 1500), (0.95, 84.4, 5200)]
        ],
    )
