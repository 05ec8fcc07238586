"""A context that every picture shifts in its own way (CoCoOp; Zhou et al. 2022, arXiv 2203.05557)."""

from typing import NoReturn, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import CapabilityError, ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where
from reprogram.inputs.contexts import SITE


@final
class ConditionedContext(Edit):
    """``x_t -> [P + g(v); x_t]`` for a picture's vector v: n learned rows P, all shifted by one g(v).

    g is Linear(width, hidden), ReLU, Linear(hidden, d) (section 3.2 of the paper): every class text is read once for
    each picture.

    Args:
        start: [n, d], what P is at first. Copied.
        width: of the pictures' vectors.
        hidden: of g; None for a sixteenth of `width`, as published, and at least 1.
        where: see `SoftPrompt`.
        site: where the text tower's embeddings are.

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite, a width below 1, or an unknown place.

    >>> edit = ConditionedContext(torch.zeros(4, 512), 512)
    >>> sum(p.numel() for p in edit.parameters())  # the published 35,360 for ViT-B/16
    35360
    """

    operators = frozenset({Operator.CONCATENATIVE, Operator.PARAMETRIC})
    where: Where

    def __init__(
        self, start: Float[Tensor, " n d"], width: int, *, hidden: int | None = None, where: Where = "start",
        site: str = SITE,
    ) -> None:  # fmt: skip
        super().__init__()
        check_start(start, "n d")
        check_where(where)
        inner = max(1, width // 16) if hidden is None else hidden
        if width < 1 or inner < 1:
            raise ConfigError(say("width and hidden", "must be 1 or more", (width, inner)))
        self.site, self.where = site, where
        self.values = nn.Parameter(start.detach().float().clone())
        self.shift = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, start.shape[1]))

    def tokens_for(self, pictures: Float[Tensor, " batch width"]) -> Float[Tensor, " batch n d"]:
        """P + g(v) for each picture, in float32 also under autocast."""
        with torch.autocast(self.values.device.type, enabled=False):
            return self.values + self.shift(pictures.float())[:, None]

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> NoReturn:
        """There is no context without a picture.

        Raises:
            CapabilityError: always; a source of pictures and texts asks `tokens_for`.
        """
        got = f"{list(value.shape)} at `{self.site}`"
        raise CapabilityError(say("source", "must compare pictures with texts for a context that pictures shift", got))

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"
