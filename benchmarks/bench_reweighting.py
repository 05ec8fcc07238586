"""DVP's reweighting of descriptions against a Python double loop over a dense matrix.

    python benchmarks/bench_reweighting.py [--quick]

c classes with m descriptions each, 16 pictures a class, 3 nearest descriptions a picture. The plain side does what the
published rule says: a matrix [c m, c] whose entries are counted one by one, divided row by row, and multiplied with the
scores of all descriptions. Ours keeps the blocks [c, m] and joins each class's descriptions to one vector. Both sides
get the same data, take turns in one process, and must agree. "build" is from nearest descriptions to weights; "apply"
is from pictures' vectors to class scores, with weights that are there.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._common import interleaved, ratio, table, write
from reprogram.core.source import SourceOutput
from reprogram.outputs import ReweightedDescriptions, count_nearest, reweighted

GOAL = 1000.0
SHOTS, NEAREST, WIDTH, BATCH = 16, 3, 512, 64


def plain_matrix(nearest: Any, labels: Any, classes: int, each: int) -> Tensor:
    """[c m, c], an entry at a time."""
    matrix = np.zeros((classes, classes * each))
    for i in range(len(nearest)):
        for j in range(nearest.shape[1]):
            matrix[labels[i], labels[i] * each + nearest[i, j]] += 1
    return torch.tensor((matrix / matrix.sum(1, keepdims=True)).T).float()


def jobs(classes: int, each: int) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Name: the plain side, ours."""
    draw = torch.Generator().manual_seed(0)
    n = classes * SHOTS
    labels = torch.arange(n) % classes
    nearest = torch.rand(n, each, generator=draw).topk(NEAREST, dim=1).indices
    start = torch.full((classes, each), 1 / each)
    vectors = F.normalize(torch.randn(classes * each, WIDTH, generator=draw), dim=1)
    pictures = F.normalize(torch.randn(BATCH, WIDTH, generator=draw), dim=1)
    owner = torch.arange(classes * each) // each
    output = ReweightedDescriptions(vectors, owner, torch.zeros_like(owner), (classes, 1), scale=100.0)
    ids, own = nearest.numpy(), labels.numpy()

    def ours() -> Tensor:
        return reweighted(count_nearest(nearest, labels, torch.zeros(classes, each, dtype=torch.int64)), start)

    count_nearest(nearest, labels, output.counts)
    output.refresh()
    dense, said = plain_matrix(ids, own, classes, each), SourceOutput(features=pictures)
    torch.testing.assert_close(output.fold(), dense)
    torch.testing.assert_close(output.weights, ours())
    logits = 100.0 * pictures @ vectors.T
    torch.testing.assert_close(output(said), logits @ dense, atol=1e-4, rtol=1e-4)
    return {
        "build the weights": (lambda: plain_matrix(ids, own, classes, each), ours),
        "apply them to a batch": (lambda: (100.0 * pictures @ vectors.T) @ dense, lambda: output(said)),
        "join descriptions, at a refresh": (lambda: vectors.T @ dense, lambda: _joined(output)),
    }


def _joined(output: ReweightedDescriptions) -> Tensor:
    output.join()
    return output.joined


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="c = 40, m = 10, three runs; nothing is written")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    (classes, each), runs = ((40, 10), 3) if args.quick else ((397, 60), 15)
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        for name, (plain, ours) in jobs(classes, each).items():
            seconds = interleaved({"plain": plain, "ours": ours}, runs=runs)
            theirs, mine = (1e3 * statistics.median(seconds[side]) for side in ("plain", "ours"))
            rows.append({"what": name, "plain ms": theirs, "ours ms": mine,
                         "ratio": ratio(seconds["plain"], seconds["ours"])})  # fmt: skip
    print(f"c={classes} m={each} pictures={classes * SHOTS} batch={BATCH} d={WIDTH}, 1 thread, median of {runs}")
    print(table(rows))
    sizes = {"dense matrix, kB": 4 * classes * classes * each / 1000, "blocks, kB": 4 * classes * each / 1000}
    print(", ".join(f"{name}: {size:,.0f}" for name, size in sizes.items()))
    if not args.quick:
        write("reweighting", {"c": classes, "m": each, "goal of build": GOAL, "rows": rows, **sizes})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
