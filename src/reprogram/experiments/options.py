"""What an experiment is asked to do, and how much of everything that means."""

from dataclasses import dataclass
from pathlib import Path

from reprogram.core.errors import ConfigError, say
from reprogram.experiments.zoo import Training

METHODS = ("vp", "fc", "ilm_vp", "blm")
"""Methods whose settings are known here; see `measure.settings`."""

MOST_ROWS = 400
"""Samples times classes: the side of the largest kernel that is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is done.

    Attributes:
        training: of the sources.
        train: target images to fit on.
        val: to choose the epoch by.
        test: to score on.
        epochs: of every fit.
        directions: of a zeroth-order estimate.
    """

    training: Training
    train: int
    val: int
    test: int
    epochs: int
    directions: int


FULL = Scale(training=Training(), train=500, val=150, test=1000, epochs=20, directions=256)
QUICK = Scale(training=Training(images=200, test=100, epochs=2), train=60, val=20, test=60, epochs=2, directions=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of an experiment.

    Attributes:
        out: folder for everything that is written; what lies there from an earlier run is taken up again.
        source_task: what sources are trained on.
        task: what they are reprogrammed to.
        methods: of reprogramming.
        sources: references of ready-made sources to take instead of training some (`depth` and `architectures`).
        seeds: how many.
        samples: target images in a kernel.
        epochs: of every fit; None for the scale's.
        size: pixels of every program's canvas, and train: target images to fit on; `efficiency` alone takes these.
        quick: a small slice that only shows that everything runs; its verdicts mean nothing.
        command: the command line, for the note.
    """

    out: Path
    source_task: str = "bundled/mnist5k"
    task: str = "bundled/digits"
    methods: tuple[str, ...] = ("vp", "fc")
    sources: tuple[str, ...] = ()
    seeds: int = 3
    samples: int = 40
    epochs: int | None = None
    size: int | None = None
    train: int | None = None
    quick: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("seeds", "samples", "epochs", "size", "train"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(say(name, "must be 1 or more", value))
        strange = [m for m in self.methods if m not in METHODS]
        if strange or not self.methods:
            raise ConfigError(say("methods", f"must be among {list(METHODS)}", list(self.methods)))

    @property
    def scale(self) -> Scale:
        """How much of everything."""
        return QUICK if self.quick else FULL

    @property
    def rounds(self) -> int:
        """Epochs of every fit."""
        return self.epochs or self.scale.epochs

    def kernel_samples(self, classes: int) -> int:
        """Target images in a kernel of this many classes: what was asked for, as far as `MOST_ROWS` goes.

        >>> Options(out=Path(".")).kernel_samples(10), Options(out=Path(".")).kernel_samples(40)
        (40, 10)
        """
        wanted = min(self.samples, 10) if self.quick else self.samples
        return max(2, min(wanted, MOST_ROWS // classes))
