"""The actual training curve beside the predicted one: full-batch gradient descent on the squared loss."""

import math

import torch
from torch import Tensor

from reprogram.core.program import Program
from reprogram.ntk.sweep import exact_products


def follow(program: Program, x: Tensor, labels: Tensor, rate: float, steps: int, chunk: int) -> tuple[float, ...]:
    """Train for some steps and note the loss a sample, ``sum (F - Y)^2 / 2 N``, before every step.

    The program is left as it then is; `diagnose` puts it back. Ends early when the loss is no longer finite.

    Args:
        program: in eval mode.
        x: [N, ...] samples.
        labels: [N, T] centred labels.
        rate: the step size, below 2 / lambda_max of the kernel.
        steps: how many.
        chunk: samples to a forward pass.
    """
    learned = [p for p in program.parameters() if p.requires_grad]
    losses: list[float] = []
    with exact_products():
        for step in range(steps + 1):
            loss, grads = 0.0, [torch.zeros_like(p) for p in learned]
            for rows in torch.arange(len(x)).split(chunk):
                with torch.set_grad_enabled(step < steps):
                    gap = program(x[rows].to(program.source.device)) - labels[rows].to(program.source.device)
                    part = gap.square().sum() / 2
                if part.requires_grad:
                    found = torch.autograd.grad(part, learned, allow_unused=True, materialize_grads=True)
                    for total, g in zip(grads, found, strict=True):
                        total.add_(g)
                loss += float(part.detach())
            losses.append(loss / len(x))
            if not math.isfinite(loss):
                break
            with torch.no_grad():
                for p, g in zip(learned, grads, strict=True):
                    p.sub_(g, alpha=rate)
    return tuple(v for v in losses if math.isfinite(v))
