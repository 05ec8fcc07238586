"""Learned keys and values before those of the sequence (prefix-tuning; Li and Liang 2021, arXiv 2101.00190)."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, meet

_AXES = "n layers 2 heads width"


@final
class Prefix(Edit):
    """``K_l -> [P_l; K_l]``, ``V_l -> [Q_l; V_l]`` in every layer l: n learned keys and values a head.

    The learned numbers are `values` [n, layers, 2, heads, width]; `values.flatten(1)` is the flat table
    [n, 2 * layers * heads * width] with the keys of layer l at block 2l and its values at block 2l + 1.

    Args:
        start: [n, layers, 2, heads, width], as attention sees them; see `starts.prefix_start`. Copied.
        shift: the sequence's own positions start at n, as if the prefix were tokens before it.
        site: "kv" (all layers of the source) or "kv.i" (one; then there is one layer here).

    Raises:
        ConfigError: a start of another shape or with numbers that are not finite.

    >>> prefix = Prefix(torch.ones(3, 1, 2, 2, 4), site="kv.0")
    >>> prefix(torch.zeros(5, 2, 2, 6, 4)).shape, prefix.keys_values().shape
    (torch.Size([5, 2, 2, 9, 4]), torch.Size([3, 1, 2, 2, 4]))
    """

    operators = frozenset({Operator.CONCATENATIVE})

    def __init__(
        self, start: Float[Tensor, " n layers 2 heads width"], *, shift: bool = True, site: str = "kv"
    ) -> None:
        super().__init__()
        check_start(start, _AXES)
        self.site, self.shift = site, shift
        self.values = nn.Parameter(start.detach().float().clone())

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return len(self.values)

    def keys_values(self) -> Float[Tensor, " n layers 2 heads width"]:
        """P and Q of all layers."""
        return self.values

    def forward(
        self, value: Float[Tensor, " batch 2 heads tokens width"]
    ) -> Float[Tensor, " batch 2 heads more width"]:
        """Keys and values of one layer with the prefix before them.

        Raises:
            ConfigError: the prefix is for several layers; the source then takes `keys_values` apart.
        """
        return _before(self.keys_values(), value)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, shift={self.shift}, site={self.site!r}"


@final
class EncodedPrefix(Edit):
    """A `Prefix` that a small network makes: ``g(E)``, g = Linear(d, h), tanh, Linear(h, 2 * layers * heads * width).

    The reparameterisation of section 4.3 of the paper, which makes training less sensitive to the learning rate. The n
    rows E start at N(0, 1); the last layer is fitted, so that g(E) starts at `start` (exactly for n up to h).

    Args:
        start: [n, layers, 2, heads, width], as for `Prefix`.
        width: d, of the rows of E.
        hidden: h (paper: 512 for table-to-text, 800 for summarisation).
        shift: see `Prefix`.
        site: see `Prefix`.

    Raises:
        ConfigError: a start of another shape, or a setting out of range.

    >>> sum(p.numel() for p in EncodedPrefix(torch.zeros(5, 3, 2, 2, 12), width=48, hidden=32).parameters())
    6560
    """

    operators = frozenset({Operator.CONCATENATIVE, Operator.PARAMETRIC})

    def __init__(
        self, start: Float[Tensor, " n layers 2 heads width"], *, width: int, hidden: int = 512, shift: bool = True,
        site: str = "kv",
    ) -> None:  # fmt: skip
        super().__init__()
        check_start(start, _AXES)
        if width < 1 or hidden < 1:
            raise ConfigError(say("width and hidden", "must be 1 or more", (width, hidden)))
        self.site, self.shift, self._shape = site, shift, start.shape
        self.values = nn.Parameter(torch.randn(len(start), width))
        self.inner = nn.Sequential(nn.Linear(width, hidden), nn.Tanh())
        self.last = nn.Linear(hidden, start[0].numel())
        meet(self.last, self.inner(self.values), start.flatten(1))

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return len(self.values)

    def keys_values(self) -> Float[Tensor, " n layers 2 heads width"]:
        """g(E), in float32 also under autocast."""
        with torch.autocast(self.values.device.type, enabled=False):
            return self.last(self.inner(self.values)).view(self._shape)

    def forward(
        self, value: Float[Tensor, " batch 2 heads tokens width"]
    ) -> Float[Tensor, " batch 2 heads more width"]:
        """Keys and values of one layer with the prefix before them; see `Prefix.forward`."""
        return _before(self.keys_values(), value)

    @torch.no_grad()
    def compact(self) -> Prefix:
        """The prefix that the network makes now, without the network: what need be kept after training."""
        return Prefix(self.keys_values(), shift=self.shift, site=self.site)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"prefix={tuple(self._shape)}, shift={self.shift}, site={self.site!r}"


def _before(prefix: Tensor, value: Tensor) -> Tensor:
    if prefix.shape[1] != 1:
        raise ConfigError(say("prefix", "must be of one layer to act on one layer's keys and values", prefix.shape[1]))
    if prefix.shape[2:] != (*value.shape[1:3], value.shape[4]):
        need = f"must be keys and values of {list(prefix.shape[3:])} heads and numbers"
        raise ConfigError(say("value", need, list(value.shape)))
    ready = prefix[:, 0].permute(1, 2, 0, 3).expand(len(value), -1, -1, -1, -1)  # [batch, 2, heads, n, width]
    return torch.cat([ready.to(value.dtype), value], dim=3)
