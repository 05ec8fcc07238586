"""What a source said about several inputs: some rows of it, several batches as one, one batch as several."""

from dataclasses import replace

import torch
from torch import Tensor

from reprogram.core.source import SourceOutput
from reprogram.tasks import Split

_BY_INPUT = ("scores", "features", "token_scores", "continuations", "choices", "choice_tokens", "local")
"""What of an output has a row for each input."""


def parts(said: SourceOutput) -> dict[str, Tensor]:
    """The tensors of it that have a row an input; class texts are among them if they depend on the picture."""
    found = {name: value for name in _BY_INPUT if (value := getattr(said, name)) is not None}
    if said.texts is not None and said.texts.ndim == 3:
        found["texts"] = said.texts
    return found


def with_parts(said: SourceOutput, changed: dict[str, Tensor]) -> SourceOutput:
    """The same with other tensors in the places of `parts`."""
    return replace(said, **changed)  # type: ignore[arg-type]  # the names are its own


def rows(said: SourceOutput, index: Tensor) -> SourceOutput:
    """Some rows of it."""
    chosen = with_parts(said, {name: of_all[index] for name, of_all in parts(said).items()})
    return replace(
        chosen,
        written=None if said.written is None else tuple(said.written[i] for i in index.tolist()),
        at={site: of_all[index] for site, of_all in said.at.items()},
        plain=None if said.plain is None else rows(said.plain, index),
    )


def joined(several: list[SourceOutput]) -> SourceOutput:
    """Outputs of several batches as one; class texts that depend on no picture are the same in all of them."""
    first, tensors = several[0], [parts(one) for one in several]
    whole = with_parts(first, {name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})
    plains = [one.plain for one in several if one.plain is not None]
    return replace(
        whole,
        written=None if first.written is None else tuple(text for one in several for text in one.written or ()),
        exact=all(one.exact for one in several),
        at={site: torch.cat([one.at[site] for one in several]) for site in first.at},
        plain=joined(plains) if plains else None,
    )


def divided(said: SourceOutput, size: int) -> list[SourceOutput]:
    """One batch as several of `size` inputs, in order."""
    count = len(next(iter(parts(said).values())))
    order = torch.arange(count, device=next(iter(parts(said).values())).device)
    return [rows(said, index) for index in order.split(size)]


def placed(said: SourceOutput, where: Tensor, other: SourceOutput) -> SourceOutput:
    """`said` with the rows at `where` taken from `other`, which has just those."""
    theirs = parts(other)
    mine = {name: value.index_put((where,), theirs[name]) for name, value in parts(said).items()}
    at = {site: value.index_put((where,), other.at[site]) for site, value in said.at.items()}
    plain = said.plain if said.plain is None or other.plain is None else placed(said.plain, where, other.plain)
    return replace(with_parts(said, mine), at=at, plain=plain)


def target_of(said: SourceOutput, split: Split, index: Tensor, device: torch.device) -> Tensor:
    """The classes of a batch, or the tokens that the source was to predict."""
    return split.labels[index].to(device) if said.targets is None else said.targets
