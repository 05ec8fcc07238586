"""The label maps' rules, step by step in plain Python, from their descriptions. Slow on purpose; no tensors inside."""

import math

Matrix = list[list[float]]


def counts(predicted: list[int], target: list[int], sources: int, targets: int) -> list[list[int]]:
    """C[s][t]: samples of class t that were taken for s."""
    found = [[0] * targets for _ in range(sources)]
    for s, t in zip(predicted, target, strict=True):
        found[s][t] += 1
    return found


def one_to_one(table: Matrix) -> list[int]:
    """T times: the largest cell that is left, the first of equals row by row; strike its row and column."""
    sources, targets = len(table), len(table[0])
    chosen = [-1] * targets
    for _ in range(targets):
        best = None
        for s in range(sources):
            for t in range(targets):
                if s in chosen or chosen[t] >= 0:
                    continue
                if best is None or table[s][t] > table[best[0]][best[1]]:
                    best = (s, t)
        assert best is not None
        chosen[best[1]] = best[0]
    return chosen


def many_to_one(table: Matrix, per_class: int) -> list[list[int]]:
    """Cells with a count, largest first and row by row; then what is short is filled with the smallest unused."""
    cells = [(s, t) for s in range(len(table)) for t in range(len(table[0])) if table[s][t] > 0]
    cells.sort(key=lambda cell: (-table[cell[0]][cell[1]], cell))
    chosen: list[list[int]] = [[] for _ in table[0]]
    used: set[int] = set()
    for s, t in cells:
        if s not in used and len(chosen[t]) < per_class:
            chosen[t].append(s)
            used.add(s)
    for row in chosen:
        while len(row) < per_class:
            row.append(min(set(range(len(table))) - used))
            used.add(row[-1])
    return chosen


def bayesian(table: Matrix, smoothing: float) -> Matrix:
    """Rows over their sum + smoothing, then columns over their sum; 0 / 0 is 0."""
    rows = [[_over(c, sum(row) + smoothing) for c in row] for row in table]
    totals = [sum(row[t] for row in rows) for t in range(len(table[0]))]
    return [[_over(p, total) for p, total in zip(row, totals, strict=True)] for row in rows]


def soft_counts(logits: Matrix, target: list[int], sources: int, targets: int, top: int, heat: float) -> Matrix:
    """A[s][t]: softmax values of the samples of class t that have s among their k highest."""
    found = [[0.0] * targets for _ in range(sources)]
    for row, t in zip(logits, target, strict=True):
        high = max(row)
        powers = [math.exp((z - high) / heat) for z in row]
        for s in sorted(range(sources), key=lambda s: (-row[s], s))[:top]:
            found[s][t] += powers[s] / sum(powers)
    return found


def _over(a: float, b: float) -> float:
    return a / b if b else 0.0
