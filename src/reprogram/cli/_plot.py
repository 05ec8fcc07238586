"""A small plot of a curve for the terminal, in letters that every terminal has."""

import math
from collections.abc import Sequence


def curve(rates: Sequence[float], losses: Sequence[float], mark: float, *, width: int = 60, height: int = 10) -> str:
    """Losses over rates on a log scale; `|` stands at the rate of `mark`.

    >>> print(curve([0.01, 0.1, 1.0], [3.0, 1.0, 2.0], 0.1, width=9, height=3))
    3.000 *   |
          |   |   *
    1.000 |   *
          0.01    1
    """
    low, high = min(losses), max(losses)
    ends = math.log(rates[0]), math.log(rates[-1])

    def column(rate: float) -> int:
        return round((math.log(rate) - ends[0]) / ((ends[1] - ends[0]) or 1.0) * (width - 1))

    def row(loss: float) -> int:
        return round((high - loss) / ((high - low) or 1.0) * (height - 1))

    cells = [["|" if at in (0, column(mark)) else " " for at in range(width)] for _ in range(height)]
    for rate, loss in zip(rates, losses, strict=True):
        cells[row(loss)][column(rate)] = "*"
    labels = {0: f"{high:.3f}", height - 1: f"{low:.3f}"}
    margin = max(map(len, labels.values()))
    lines = [f"{labels.get(at, ''):>{margin}} {''.join(line)}".rstrip() for at, line in enumerate(cells)]
    first, last = f"{rates[0]:.2g}", f"{rates[-1]:.2g}"
    return "\n".join([*lines, f"{'':>{margin}} {first}{last:>{max(1, width - len(first))}}"])
