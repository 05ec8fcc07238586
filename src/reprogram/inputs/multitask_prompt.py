"""A soft prompt that tasks share, times a low-rank one of each task's own (MPT; Wang et al. 2023, arXiv 2303.02861)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where, inserted
from reprogram.inputs.soft_prompt import SoftPrompt

Factors = tuple[Tensor, Tensor]
"""u [n, r] and v [r, d]."""


@final
class MultitaskPrompt(Edit):
    """``x -> [P * (u v); x]`` with P [n, d] shared, u [n, r] and v [r, d] the task's, ``*`` number by number.

    Args:
        shared: [n, d], what P is at first.
        rank: r.
        factors: u and v to start from (see `of_tasks`); None for factors whose product is one everywhere, so that the
            prompt starts at P. (Factors near 0, as elsewhere, start it near zero, where some models give NaN.)
        learn_shared: learn P too; False keeps what several tasks share as it is.
        where: see `SoftPrompt`.
        site: where token embeddings are.

    Raises:
        ConfigError: shapes that do not fit, or a rank below 1.

    >>> prompt = MultitaskPrompt(torch.rand(4, 6), rank=2)
    >>> torch.allclose(prompt.tokens(), prompt.shared), sum(p.numel() for p in prompt.parameters())
    (True, 44)
    """

    operators = frozenset({Operator.CONCATENATIVE})
    where: Where
    shared: Tensor

    def __init__(
        self,
        shared: Float[Tensor, " n d"],
        *,
        rank: int = 1,
        factors: Factors | None = None,
        learn_shared: bool = True,
        where: Where = "start",
        site: str = "embedding",
    ) -> None:
        super().__init__()
        check_start(shared, "n d")
        check_where(where)
        if rank < 1:
            raise ConfigError(say("rank", "must be 1 or more", rank))
        n, d = shared.shape
        u, v = _ones(n, d, rank) if factors is None else factors
        if u.shape != (n, rank) or v.shape != (rank, d):
            got = (list(u.shape), list(v.shape))
            raise ConfigError(say("factors", f"must be [{n}, {rank}] and [{rank}, {d}]", got))
        self.site, self.where = site, where
        if learn_shared:
            self.shared = nn.Parameter(shared.detach().float().clone())
        else:
            self.register_buffer("shared", shared.detach().float().clone())
        self.u, self.v = (nn.Parameter(f.detach().float().clone()) for f in (u, v))

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return len(self.shared)

    def tokens(self) -> Float[Tensor, " n d"]:
        """P * (u v)."""
        return self.shared * (self.u @ self.v)

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch longer d"]:
        """The sequences with the prompt in them."""
        return inserted(value, self.tokens().expand(len(value), -1, -1), self.where)

    @torch.no_grad()
    def compact(self) -> SoftPrompt:
        """The product alone, as a soft prompt."""
        return SoftPrompt(self.tokens(), where=self.where, site=self.site)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"shared={tuple(self.shared.shape)}, rank={self.u.shape[1]}, where={self.where!r}, site={self.site!r}"


def of_tasks(tasks: Sequence[Factors], how: Literal["average"] | int = "average") -> Factors:
    """Factors for a new task from those of source tasks: their means (the paper's), or exactly one task's, by number.

    Raises:
        ConfigError: no tasks, shapes that differ, or a number that is none of theirs.

    >>> u, v = of_tasks([(torch.zeros(2, 1), torch.ones(1, 3)), (torch.ones(2, 1), torch.ones(1, 3))])
    >>> u.tolist(), v.tolist()
    ([[0.5], [0.5]], [[1.0, 1.0, 1.0]])
    """
    shapes = {(tuple(u.shape), tuple(v.shape)) for u, v in tasks}
    if len(shapes) != 1:
        raise ConfigError(say("tasks", "must be factors of one shape, of at least one task", sorted(shapes)))
    if how == "average":
        us, vs = zip(*tasks, strict=True)
        return torch.stack(us).mean(0), torch.stack(vs).mean(0)
    if not 0 <= how < len(tasks):
        raise ConfigError(say("how", f"must be average or a number from 0 to {len(tasks) - 1}", how))
    u, v = tasks[how]
    return u.clone(), v.clone()


def _ones(n: int, d: int, rank: int) -> Factors:
    """Factors whose product is 1 everywhere; the ranks differ, or they would learn the same for ever."""
    noise = torch.randn(rank, d) * 0.1
    return torch.ones(n, rank), 1 / rank + noise - noise.mean(0)
