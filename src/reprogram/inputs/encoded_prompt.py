"""A soft prompt that a small network makes (P-tuning; Liu et al. 2021, arXiv 2103.10385)."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import ConfigError, say
from reprogram.core.inserting import Where
from reprogram.core.program import Edit
from reprogram.core.taxonomy import Operator
from reprogram.inputs._insert import check_start, check_where, inserted, meet
from reprogram.inputs.soft_prompt import SoftPrompt

Encoder = Literal["lstm", "mlp"]


@final
class EncodedPrompt(Edit):
    """``x -> [g(E); x]``: n learned rows E, and a learned network g that sees all of them.

    "lstm" (the paper's): a bidirectional LSTM d -> h of `layers` layers, then Linear(2h, 2h), ReLU, Linear(2h, d).
    "mlp": Linear(d, h), ReLU, Linear(h, h), ReLU, Linear(h, d), each row on its own. E starts at N(0, 1); the last
    layer is then fitted, so that g(E) starts at `start` whatever g is.

    Args:
        start: [n, d], what the prompt is at first; see `starts`. Exact for n up to the width of g's last layer.
        hidden: h; None for d.
        encoder: "lstm" or "mlp".
        layers: of the LSTM.
        dropout: between the layers of the LSTM, while training.
        where: see `SoftPrompt`.
        site: where token embeddings are.

    Raises:
        ConfigError: a start of another shape, or a setting out of range.

    >>> def count(edit):
    ...     return sum(p.numel() for p in edit.parameters())
    >>> start = torch.zeros(5, 48)
    >>> count(EncodedPrompt(start, hidden=32, encoder="mlp")), count(EncodedPrompt(start, hidden=32))
    (4448, 53600)
    """

    operators = frozenset({Operator.CONCATENATIVE, Operator.PARAMETRIC})
    where: Where

    def __init__(  # noqa: PLR0913 - each is a published choice
        self, start: Float[Tensor, " n d"], *, hidden: int | None = None, encoder: Encoder = "lstm", layers: int = 2,
        dropout: float = 0.0, where: Where = "start", site: str = "embedding",
    ) -> None:  # fmt: skip
        super().__init__()
        check_start(start, "n d")
        check_where(where)
        n, d = start.shape
        h = d if hidden is None else hidden
        if encoder not in ("lstm", "mlp"):
            raise ConfigError(say("encoder", "must be lstm or mlp", encoder))
        if h < 1 or layers < 1:
            raise ConfigError(say("hidden and layers", "must be 1 or more", (h, layers)))
        if not 0 <= dropout < 1:
            raise ConfigError(say("dropout", "must be in [0, 1)", dropout))
        self.site, self.where = site, where
        self.values = nn.Parameter(torch.randn(n, d))
        self.recurrent: nn.LSTM | None = None
        if encoder == "lstm":
            between = dropout if layers > 1 else 0.0
            self.recurrent = nn.LSTM(d, h, layers, batch_first=True, bidirectional=True, dropout=between)
            self.inner: nn.Module = nn.Sequential(nn.Linear(2 * h, 2 * h), nn.ReLU())
        else:
            self.inner = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU())
        self.last = nn.Linear(2 * h if encoder == "lstm" else h, d)
        training = self.training
        self.eval()  # without dropout
        meet(self.last, self._inner(), start)
        self.train(training)

    @property
    def length(self) -> int:
        """The number n of tokens."""
        return len(self.values)

    def tokens(self) -> Float[Tensor, " n d"]:
        """g(E), in float32 also under autocast."""
        with torch.autocast(self.values.device.type, enabled=False):
            return self.last(self._inner())

    def forward(self, value: Float[Tensor, " batch tokens d"]) -> Float[Tensor, " batch longer d"]:
        """The sequences with g(E) in them."""
        return inserted(value, self.tokens().expand(len(value), -1, -1), self.where)

    @torch.no_grad()
    def compact(self) -> SoftPrompt:
        """The prompt that the network makes now, without the network: what need be kept after training."""
        training = self.training
        made = SoftPrompt(self.eval().tokens(), where=self.where, site=self.site)
        self.train(training)
        return made

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"values={tuple(self.values.shape)}, where={self.where!r}, site={self.site!r}"

    def _inner(self) -> Tensor:
        rows = self.values
        if self.recurrent is not None:
            rows = self.recurrent(rows.unsqueeze(0))[0].squeeze(0)
        return self.inner(rows)
