"""The plain way: one output of one sample at a time, all gradients of all numbers, one big Jacobian."""

import torch
from torch import nn


def gram_of(rows):
    jacobian = torch.stack(rows).double()
    return jacobian @ jacobian.T


def plain(program, x, numbers):
    """[NT, NT] for the tensors `numbers`, through the program as it stands."""
    before = [p.requires_grad for p in numbers]
    for p in numbers:
        p.requires_grad_(True)
    rows = []
    program.eval()
    try:
        for n in range(len(x)):
            for score in program(x[n : n + 1])[0]:
                grads = torch.autograd.grad(score, numbers, retain_graph=True, allow_unused=True)
                pairs = zip(numbers, grads, strict=True)
                rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs]))
    finally:
        for p, flag in zip(numbers, before, strict=True):
            p.requires_grad_(flag)
    return gram_of(rows)


def learned(program):
    return [p for p in program.parameters() if p.requires_grad]


def deviation(kernel, reference):
    n, t = kernel.shape[:2]
    most = reference.abs().max()
    assert most > 0, "a comparison of zeros says nothing"
    return float((kernel.reshape(n * t, n * t) - reference).abs().max() / most)


class Flat(nn.Module):
    """Takes pictures as vectors."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.flatten(1))
