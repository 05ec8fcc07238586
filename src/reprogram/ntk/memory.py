"""How much memory a kernel takes, said before it is taken."""

import os
from pathlib import Path

from reprogram.core.errors import ConfigError, say

SHARE = 0.7
"""Of what is free, a kernel may take this much."""


def available_memory() -> int:
    """Bytes that can be had without swapping; 8 GiB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError, AttributeError):
        return 8 << 30


def predicted(samples: int, targets: int, columns: int) -> int:
    """Bytes of N T rows of `columns` float32 numbers, the float64 kernel and its eigenvectors with their workspace.

    >>> predicted(100, 10, 150_528) // 2**20
    612
    """
    size = samples * targets
    return size * columns * 4 + 5 * size * min(size, max(columns, 1)) * 8


def check_memory(samples: int, targets: int, columns: int, available: int | None = None) -> None:
    """Refuse what would not fit.

    Args:
        samples: N.
        targets: T.
        columns: numbers in a row of the Jacobian.
        available: bytes; None asks the system.

    Raises:
        ConfigError: it would take more than 70 % of what is free; the message says how many samples would fit.
    """
    limit = int(SHARE * (available_memory() if available is None else available))
    need = predicted(samples, targets, columns)
    if need <= limit:
        return
    fits = samples
    while fits > 1 and predicted(fits, targets, columns) > limit:
        fits = int(fits * 0.9)
    remedy = (
        f"Take n = {fits} samples, a smaller canvas, or a sketch (`ntk.sketch_kernel`, `--sketch`), "
        "which has no smallest eigenvalue."
    )
    raise ConfigError(
        say(
            "n",
            f"must be small enough for {limit / 2**30:.1f} GiB",
            f"{samples} samples, {need / 2**30:.1f} GiB",
            remedy,
        )
    )
