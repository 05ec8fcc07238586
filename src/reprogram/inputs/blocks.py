"""What the blocks of an image source read: how many, of what shape, and where each one's result can be had."""

from dataclasses import dataclass
from math import isqrt
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from reprogram.core.errors import CapabilityError, say
from reprogram.core.program import Input
from reprogram.core.source import Reading, Source


@runtime_checkable
class Blocked(Protocol):
    """A source that knows the modules behind its sites "hidden.i"."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Their paths, which are sites, too."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """What one block reads, or returns.

    Attributes:
        site: "hidden.i", or its path.
        width: d, numbers to a place.
        grid: height and width of its map; of tokens, of the square they were.
        extra: tokens before those of the grid, such as a class token; 0 for maps.
        is_map: it reads [B, d, height, width], else [B, tokens, d].
    """

    site: str
    width: int
    grid: tuple[int, int]
    extra: int
    is_map: bool


def block_paths(source: Source) -> tuple[str, ...]:
    """Sites of what each block returns.

    Raises:
        CapabilityError: the source knows no blocks.
    """
    found = source.blocks if isinstance(source, Blocked) else ()
    if not found:
        remedy = 'Say which they are: reprogram.wrap(module, sites="layers.*", ...).'
        raise CapabilityError(say("source", "must have blocks at hidden.0, hidden.1, ...", source.spec.ref, remedy))
    return found


def look_at_blocks(source: Source, canvas: int) -> tuple[tuple[Block, Block], ...]:
    """What every block reads, and what it returns, of a picture of canvas x canvas pixels: the source is run once.

    Raises:
        CapabilityError: the source knows no blocks, or they read something that is no map and no square of tokens.
    """
    paths = block_paths(source)
    sites = tuple(f"hidden.{i}" for i in range(len(paths)))
    reading = Reading(sites=(*sites, *paths))
    source.attach((), reading)
    with torch.no_grad():
        x = torch.zeros(1, source.spec.input_shape[0], canvas, canvas, device=source.device)
        seen = source(x, Input(), reading).at
    silent = [site for site in reading.sites if site not in seen]
    if silent:
        remedy = "Say which modules are blocks: reprogram.wrap(module, sites=[...], ...)."
        raise CapabilityError(say(source.spec.ref, "must run each of its blocks", f"nothing at {silent[:4]}", remedy))
    known = {site: _block(source, site, seen[site]) for site in reading.sites}
    return tuple((known[site], known[path]) for site, path in zip(sites, paths, strict=True))


def as_map(value: Tensor, block: Block) -> Float[Tensor, " batch d height width"]:
    """Maps as they are; tokens without the extra ones as the map they were.

    >>> block = Block("hidden.0", 2, (1, 2), 1, False)
    >>> as_map(torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]]), block).tolist()
    [[[[1.0, 3.0]], [[2.0, 4.0]]]]
    """
    return value if block.is_map else value[:, block.extra :].transpose(1, 2).reshape(len(value), -1, *block.grid)


def as_tokens(value: Float[Tensor, " batch d height width"]) -> Float[Tensor, " batch places d"]:
    """A map as one token a place, row by row."""
    return value.flatten(2).transpose(1, 2)


def _block(source: Source, site: str, value: Tensor) -> Block:
    if value.ndim == 4:
        return Block(site, value.shape[1], (value.shape[2], value.shape[3]), 0, True)
    tokens = value.shape[1] if value.ndim == 3 else 0
    side = isqrt(tokens)
    if side < 1 or tokens - side * side > 2:
        need = f"must read maps [B, d, h, w] or a square of tokens (and at most two more) at {site}"
        raise CapabilityError(say(source.spec.ref, need, list(value.shape)))
    return Block(site, value.shape[2], (side, side), tokens - side * side, False)
