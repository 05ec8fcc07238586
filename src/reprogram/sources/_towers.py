"""Text towers as encoders that take embeddings, and image towers as modules that end in a vector, whoever wrote them.

The text tower of a contrastive model is run on the longest real prompt, not on all of its (77) places: it reads left to
right and ends at the end token, so what stands behind that cannot matter. SigLIP's reads both ways and ends at the last
place, padding or not: it always gets all its places.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reprogram.core.errors import DataError, say
from reprogram.sources._frozen import DERIVED


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """Facts about a text tower.

    Attributes:
        width: d of its tokens.
        heads: of its attention.
        layers: of it.
        places: positions it has.
    """

    width: int
    heads: int
    layers: int
    places: int


class Encoded(NamedTuple):
    """What a text tower made of a batch: hidden states [N, L, d] and one vector a text [N, width]."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class TextTower(nn.Module):
    """What `LanguageSource` asks of an encoder: embeddings in, hidden states and vectors out, padding on the right.

    Args:
        embed: token ids to embeddings, without positions.
        places: [P, d], what is added to the token at each position.
        shape: facts.
    """

    project: "nn.Module | nn.Parameter | None"

    def __init__(self, embed: nn.Embedding, places: nn.Parameter | nn.Embedding, shape: TowerShape) -> None:
        super().__init__()
        self.embed = embed
        self.places = places
        self.config = SimpleNamespace(
            hidden_size=shape.width, num_attention_heads=shape.heads, num_hidden_layers=shape.layers,
            max_position_embeddings=shape.places, vocab_size=embed.num_embeddings, _attn_implementation="own",
        )  # fmt: skip

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of tokens."""
        return self.embed

    def get_output_embeddings(self) -> None:
        """There are none."""

    def words(self, hidden: Tensor) -> Tensor:
        """The vectors of tokens [N, L, width] from hidden states [N, L, d], the way the text's own is made."""
        return projected(hidden, self.project)

    def placed(self, embeds: Tensor) -> Tensor:
        """Embeddings with positions."""
        table = self.places.weight if isinstance(self.places, nn.Embedding) else self.places
        length = embeds.shape[1]
        if length > len(table):
            remedy = "Shorten the prompt or the class names."
            raise DataError(say("prompt", f"must fit into {len(table)} tokens of the text tower", length, remedy))
        return embeds + table[:length].to(embeds.dtype)


@final
class CausalTower(TextTower):
    """Reads left to right; a text's vector is made of what is at its end token (CLIP).

    Args:
        embed: as above.
        places: as above.
        shape: as above.
        layers: module that runs all blocks, called by `run(layers, hidden, mask)`.
        norm: after the last block.
        project: to the common space.
        run: how `layers` is called; mask is [L, L], 0 where a token sees another, else minus infinity.
    """

    def __init__(  # noqa: PLR0913 - the parts of somebody else's model
        self, embed: nn.Embedding, places: nn.Parameter | nn.Embedding, shape: TowerShape, *, layers: nn.Module,
        norm: nn.Module, project: "nn.Module | nn.Parameter | None",
        run: Callable[[Any, Tensor, Tensor], Tensor],
    ) -> None:  # fmt: skip
        super().__init__(embed, places, shape)
        self.layers, self.norm, self.project = layers, norm, project
        self.vector_width = width_after(project, shape.width)
        self._run = run

    def forward(
        self, inputs_embeds: Float[Tensor, "n l d"], attention_mask: Tensor, return_dict: bool = True
    ) -> Encoded:
        """Hidden states and vectors."""
        hidden = self.placed(inputs_embeds)
        length = hidden.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)
        hidden = self.norm(self._run(self.layers, hidden, mask))
        end = attention_mask.long().sum(1) - 1
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), end]
        return Encoded(hidden, projected(pooled, self.project))


@final
class PaddedTower(TextTower):
    """Reads both ways, padding as well; a text's vector is made of what is at the last place (SigLIP).

    Args:
        embed: as above.
        places: as above.
        shape: as above.
        pad: id of the padding token.
        layers: module that runs all blocks, called by `run(layers, hidden)`.
        norm: after the last block.
        project: to the common space.
        run: how `layers` is called.
    """

    def __init__(  # noqa: PLR0913 - the parts of somebody else's model
        self, embed: nn.Embedding, places: nn.Parameter | nn.Embedding, shape: TowerShape, *, pad: int,
        layers: nn.Module, norm: nn.Module, project: "nn.Module | nn.Parameter | None",
        run: Callable[[Any, Tensor], Tensor],
    ) -> None:  # fmt: skip
        super().__init__(embed, places, shape)
        self.layers, self.norm, self.project, self.pad = layers, norm, project, pad
        self.vector_width = width_after(project, shape.width)
        self._run = run

    def forward(
        self, inputs_embeds: Float[Tensor, "n l d"], attention_mask: Tensor, return_dict: bool = True
    ) -> Encoded:
        """Hidden states at the batch's own places, and vectors."""
        rows, length, width = inputs_embeds.shape
        blank = self.embed.weight[self.pad].to(inputs_embeds.dtype)
        embeds = torch.where(attention_mask[..., None].bool(), inputs_embeds, blank)
        missing = max(0, self.config.max_position_embeddings - length)
        embeds = torch.cat([embeds, blank.expand(rows, missing, width)], 1)
        hidden = self.norm(self._run(self.layers, self.placed(embeds)))
        return Encoded(hidden[:, :length], projected(hidden[:, -1], self.project))


def width_after(project: "nn.Module | nn.Parameter | None", width: int) -> int:
    """Numbers of a vector that `projected` makes of one of `width`.

    >>> width_after(nn.Linear(4, 3), 4), width_after(nn.Parameter(torch.zeros(4, 2)), 4), width_after(None, 4)
    (3, 2, 4)
    """
    if project is None:
        return width
    return project.shape[1] if isinstance(project, Tensor) else int(getattr(project, "out_features", width))


def projected(value: Tensor, by: "nn.Module | nn.Parameter | None") -> Tensor:
    """To the common space, with whatever the model has for that."""
    if by is None:
        return value
    return value @ by.to(value.dtype) if isinstance(by, Tensor) else by(value)


@final
class VisionTower(nn.Module):
    """Pixels to the picture's vector, and hidden states of the last block to vectors of its patches.

    Args:
        model: pixels to the vector [B, d].
        last: path within `model` of the last block.
        patches: how many there are; learned tokens are supposed to stand behind them.
        first: of the sequence, tokens before the patches.
        local: from the last block's output at the patches to their vectors.
    """

    def __init__(
        self, model: nn.Module, *, last: str, patches: int, first: int, local: Callable[[Any, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self.parts_from = f"model.{last}"
        self._patches, self._first, self._local = patches, first, local

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, d]."""
        return self.model(pixels)

    def parts(self, value: Tensor) -> Tensor:
        """[B, patches, d]."""
        return self._local(self.model, value[:, self._first : self._first + self._patches])


@final
class ConseTower(nn.Module):
    """A classifier as an image tower: the mean of the names' vectors of its likeliest classes (ConSE).

    Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014, arXiv:1312.5650.

    Args:
        network: pixels to class scores [B, S].
        names: [S, d], vectors of the class names. They come out of other weights, so their last bits are not the same
            on every machine, and are no part of a fingerprint.
        top: K, classes that count; S for all.
        said: the names, which are a part of it.

    `e(x) = sum over the K likeliest k of p_k(x) names_k / sum of p_k(x)`, not yet of length 1.
    """

    names: Tensor

    def __init__(
        self, network: nn.Module, names: Float[Tensor, "s d"], top: int = 10, said: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("names", names)
        digest = hashlib.sha256("\n".join(said).encode()).digest()
        self.register_buffer("said", torch.tensor(list(digest), dtype=torch.uint8))
        setattr(self, DERIVED, ("names",))
        self.top = top
        self.parts_from = "network._bn1"

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, d]."""
        return self.meant(self.network(pixels))

    def meant(self, scores: Float[Tensor, "*batch s"]) -> Float[Tensor, "*batch d"]:
        """The vectors that class scores stand for."""
        chances = scores.float().softmax(-1)
        if self.top >= chances.shape[-1]:
            return chances @ self.names
        best, which = chances.topk(self.top)
        weight = torch.zeros_like(chances).scatter(-1, which, best / best.sum(-1, keepdim=True))
        return weight @ self.names

    def parts(self, value: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch parts d"]:
        """The same for every place of the last map: what the classifier would say of that place alone."""
        network: Any = self.network
        return self.meant(network._fc(network._swish(value).flatten(2).transpose(1, 2)))
