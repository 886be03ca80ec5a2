"""The options of a comparison, and the list of what it measures."""

import dataclasses
from collections.abc import Sequence

from bottlefit_jax.compare.methods import METHODS, QUALITIES, Method
from bottlefit_jax.errors import UserError

FLAGS = {  # name -> default, metavar, help
    "methods": (
        ",".join(METHODS),
        "NAME,...",
        f"the methods to compare; local, the teacher itself, is always one of them (default: {', '.join(METHODS)})",
    ),
    "seeds": ("0,1,2", "N,...", "one training of each method for each seed"),
    "channels": (
        "",
        "N,...",
        "channels of BottleFit's latent, such as 3,6,12; the other methods send as many bytes (default: the config's)",
    ),
    "device-slower": (
        "1",
        "TIMES",
        "how many times as long as a core of this machine the device takes, for the plot of latencies",
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        methods: names in METHODS; local is always measured.
        seeds: of the trainings.
        channels: of BottleFit's latent; every trained method gets as many bytes. () for the config's.
        device_slower: how many times as long as a core of this machine the device takes, for the plot of latencies.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    seeds: tuple[int, ...] = (0, 1, 2)
    channels: tuple[int, ...] = ()
    device_slower: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with.

        Raises:
            UserError: an unknown method, no seeds, or a factor that is not above 0.
        """
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise UserError(f"--methods has {unknown[0]!r}; the methods are {', '.join(METHODS)}")
        if not self.seeds:
            raise UserError("--seeds is empty; 0,1,2 is right")
        if not 0 < self.device_slower < 1e6:
            raise UserError(f"--device-slower is {self.device_slower!r}; it must be a number above 0, such as 8")

    @classmethod
    def parse(cls, values: dict[str, str]) -> "Options":
        """Read the values of FLAGS.

        Raises:
            UserError: one is invalid.
        """
        names = [name.strip() for name in values["methods"].split(",") if name.strip()]
        seeds = _whole_numbers("seeds", values["seeds"], least=0)
        channels = _whole_numbers("channels", values["channels"], least=1)
        try:
            slower = float(values["device-slower"])
        except ValueError:
            text = values["device-slower"]
            raise UserError(f"--device-slower is {text!r}; it must be a number above 0, such as 8") from None
        return cls(tuple(names), seeds, channels, slower)


def _whole_numbers(name: str, text: str, *, least: int) -> tuple[int, ...]:
    """Read whole numbers with commas between them, each once."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if any(not part.isdecimal() or int(part) < least for part in parts):
        raise UserError(f"--{name} is {text!r}; it must be whole numbers from {least} up with commas between them")
    return tuple(dict.fromkeys(int(part) for part in parts))


@dataclasses.dataclass(frozen=True)
class Item:
    """One measurement: a method with its quality, or one training of it.

    Attributes:
        method: a row of METHODS.
        quality: of images.
        channels: of the BottleFit latent with whose size it is compared; None where the method has a size of its own.
        seed: of a training.
    """

    method: Method
    quality: int | None = None
    channels: int | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """The name of its files."""
        parts = [self.method.name]
        parts += [] if self.quality is None else [f"q{self.quality}"]
        parts += [] if self.channels is None else [f"{self.channels}ch"]
        parts += [] if self.seed is None else [f"seed{self.seed}"]
        return "-".join(parts)


def to_measure(options: Options, channels: Sequence[int]) -> list[Item]:
    """List every item: the quick ones first, then seed by seed, so that a stopped comparison has whole tables."""
    chosen = [method for name, method in METHODS.items() if name in options.methods or name == "local"]
    items = [Item(method) for method in chosen if not method.change and not method.image_format]
    items += [Item(method, quality) for method in chosen if method.image_format for quality in QUALITIES]
    for seed in options.seeds:
        for method in chosen:
            if method.change:
                items += [Item(method, None, each, seed) for each in ((None,) if method.own_bytes else channels)]
    return items
