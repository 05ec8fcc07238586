"""What was learned and what the network sees, as pictures where it can be seen.

A pattern is shown in units of full brightness: 1 is the step from black to white. Patterns that act after the source's
normalisation are brought back to that unit with the source's own deviation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from reprogram.core.inserting import Inserting, Prefixing
from reprogram.core.program import Edit, Input, Program
from reprogram.core.source import Reading, Source
from reprogram.core.texts import SLOT
from reprogram.inputs import Additive, Patch, Place, SampleMask
from reprogram.media import as_unit, to_data_uri, to_picture
from reprogram.tasks import Split, Task

SIDE = 224
"""Pictures larger than this are scaled down, which keeps the file small."""


class Plate(NamedTuple):
    """A picture with its caption."""

    uri: str
    alt: str
    caption: str


class Learned(NamedTuple):
    """One learned edit: what it is in words, and its pictures."""

    title: str
    text: str
    plates: list[Plate]
    masks: Sequence[Plate] = ()


class Guess(NamedTuple):
    """A source class and its probability."""

    label: str
    share: float


class Sample(NamedTuple):
    """One picture on its way through the program."""

    name: str
    truth: str
    prediction: str
    confidence: float
    right: bool
    original: str
    edited: str
    before: list[Guess]
    after: list[Guess]


def learned(program: Program, task: Task) -> list[Learned]:
    """Every edit with learned numbers, in the order in which they act; empty if nothing is learned on the input."""
    found: list[Learned] = []
    for edit in program.input:
        count = sum(p.numel() for p in edit.parameters() if p.requires_grad)
        if count:
            found.append(_describe(edit, count, program, task))
    return found


@torch.no_grad()
def samples(program: Program, task: Task, place: Edit | None, count: int = 9) -> list[Sample]:
    """Pictures of the test split (or of the next best), drawn at random, with all that happens to them.

    Args:
        program: in eval mode.
        task: whose pictures.
        place: brings a picture to the source without the program; without a `Place` nothing is shown.
        count: how many.
    """
    if not isinstance(place, Place) or task.spec.dense:
        return []
    split = shown_split(task)
    index = _draw(split, count)
    x = split.pictures(index).to(program.source.device)
    plain = as_unit(x)
    scores = program(x).float().softmax(-1)
    reading = replace(program.output.reading, local=False, sites=(), plain=False)
    before = _top(program.source, plain, Input(place), reading)
    after = _top(program.source, plain, program.input, reading)
    views = seen(program, plain)
    rows: list[Sample] = []
    numbers: list[int] = index.tolist()
    for i, row in enumerate(numbers):
        confidence, guess = scores[i].max(-1)
        truth = int(split.labels[row])
        rows.append(Sample(
            name=split.names[row], truth=task.classes[truth], prediction=task.classes[int(guess)],
            confidence=float(confidence), right=truth == int(guess), original=_uri(plain[i], 112),
            edited=_uri(views[i]), before=before[i], after=after[i],
        ))  # fmt: skip
    return rows


def shown_split(task: Task) -> Split:
    """Test, else validation, else train."""
    return next((s for s in (task.test, task.val) if len(s)), task.train)


def seen(program: Program, x: Tensor) -> Tensor:
    """What the network sees of pictures [B, C, H, W] in [0, 1], in the same unit; values may lie outside."""
    mean, std = _statistics(program.source, x)
    images = program.input.under("image", ("input", "normalised"))
    value = (images(x, "input") - mean) / std
    return images(value, "normalised") * std + mean


def _describe(edit: Edit, count: int, program: Program, task: Task) -> Learned:
    std = _statistics(program.source, torch.empty(0))[1] if edit.site == "normalised" else torch.ones(1, 1, 1)
    where = {"input": "on the pixels", "normalised": "after the source's normalisation"}.get(
        edit.site, f"inside the network, at {edit.site}"
    )
    if isinstance(edit, (Inserting, Prefixing)):
        return _tokens(edit, count, task)
    if isinstance(edit, Additive):
        return _additive(edit, count, where, std)
    if isinstance(edit, Patch):
        text = f"A patch of {edit.size} x {edit.size} pixels, {count:,} learned numbers, added {where}."
        return Learned("Learned patch", text, _plates(edit.values.detach().cpu() * std, None))
    if isinstance(edit, SampleMask):
        return _sample_mask(edit, count, program, task, std)
    text = f"{count:,} learned numbers act {where}. They are no picture, so none is shown."
    return Learned(type(edit).__name__, text, [])


def _tokens(edit: Edit, count: int, task: Task) -> Learned:
    what = "text" if task.spec.modality == "text" else "picture"
    what = "class text" if edit.site.startswith("text.") else what
    if isinstance(edit, Prefixing):
        where = f"keys and values of {edit.length} positions that every token of the {what} attends to"
    else:
        assert isinstance(edit, Inserting)
        where = f"{edit.length} tokens that join every {what} before the first layer"
    text = f"{count:,} learned numbers make {where}."
    return Learned("Learned prefix" if isinstance(edit, Prefixing) else "Learned tokens", text, [])


def _additive(edit: Additive, count: int, where: str, std: Tensor) -> Learned:
    values = edit.pattern().detach().cpu() * std
    mask = torch.zeros(values.shape[1] * values.shape[2], dtype=torch.bool)
    mask[edit.pixels.cpu()] = True
    hole = mask.view(values.shape[1:])
    place = "over the whole picture" if bool(mask.all()) else "around the picture, which sits in the empty middle"
    text = f"The same pattern is added to every picture, {where}: {place}. {count:,} learned numbers."
    return Learned("Learned pattern", text, _plates(values, None if bool(mask.all()) else hole))


@torch.no_grad()
def _sample_mask(edit: SampleMask, count: int, program: Program, task: Task, std: Tensor) -> Learned:
    split = shown_split(task)
    x = as_unit(split.pictures(_draw(split, 4)).to(program.source.device))
    masks = edit.mask(_reaching(edit, program, x)).cpu()
    low, high = float(masks.min()), float(masks.max())
    shown = [
        Plate(_uri((mask - low) / max(high - low, 1e-12), 112), f"mask of sample {i}", f"Mask of sample {i}")
        for i, mask in enumerate(masks, 1)
    ]
    text = (
        f"A pattern that every picture sees through a mask of its own, which a small network makes from it. {count:,} "
        "learned numbers, pattern and network together. The masks are those of the first samples shown further down, "
        f"one value a colour: black is {_signed(low)}, white {_signed(high)}; 0 lets nothing of the pattern through."
    )
    return Learned("Learned pattern and masks", text, _plates(edit.values.detach().cpu() * std, None), shown)


def _reaching(target: Edit, program: Program, x: Tensor) -> Tensor:
    """The value that comes to an edit."""
    mean, std = _statistics(program.source, x)
    for site in ("input", "normalised"):
        x = x if site == "input" else (x - mean) / std
        for edit in program.input.at(site):
            if edit is target:
                return x
            x = edit(x)
    return x


def _plates(values: Tensor, mask: Tensor | None) -> list[Plate]:
    """The pattern with its contrast stretched, and as it is. Outside the mask pictures are transparent."""
    inside = values if mask is None else values[:, mask]
    low, high = float(inside.min()), float(inside.max())
    whole = f"from {_signed(low)} to {_signed(high)} of full brightness"
    if high - low < 1e-6:
        stretched = Plate(_uri(_rgba(torch.full_like(values, 0.5), mask)), "learned pattern, uniform",
                          f"All values are equal ({_signed(low)}): nothing has been learned yet")  # fmt: skip
    else:
        stretched = Plate(_uri(_rgba((values - low) / (high - low), mask)), "learned pattern, contrast stretched",
                          f"Contrast stretched; the values go {whole}")  # fmt: skip
    if low >= 0:
        true = Plate(_uri(_rgba(values, mask)), "learned pattern in true scale", "True scale: as it looks on black")
    else:
        true = Plate(_uri(_rgba(values + 0.5, mask)), "learned pattern in true scale",
                     "True scale, on mid-grey: grey is no change")  # fmt: skip
    return [stretched, true]


def _rgba(values: Tensor, mask: Tensor | None) -> "Tensor | tuple[Tensor, Tensor]":
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdim=True)
    return values if mask is None else (values, mask)


def _uri(picture: "Tensor | tuple[Tensor, Tensor]", most: int = SIDE) -> str:
    """A PNG of at most `most` pixels a side."""
    values, mask = picture if isinstance(picture, tuple) else (picture, None)
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdim=True)
    image = to_picture(values)
    if mask is not None:
        image.putalpha(to_picture(mask.float()))
    return to_data_uri(image, min(most, max(image.size)))


def _top(source: Source, x: Tensor, input: Input, reading: Reading, count: int = 3) -> list[list[Guess]]:
    """The likeliest source classes, or class texts of an image-text source; nothing where there are neither."""
    scores = source(x, input, reading).scores
    if scores is None:
        return [[] for _ in x]
    shares = scores.float().softmax(-1).cpu()
    variants = shares.shape[1] // len(reading.texts) if reading.texts else 1
    values, places = shares.topk(min(count, shares.shape[1]), dim=1)

    def name(place: int) -> str:
        return "".join(map(_shown, reading.texts[place // variants])) if reading.texts else source.spec.label(place)

    return [
        [Guess(name(int(p)), float(v)) for v, p in zip(row, where, strict=True)]
        for row, where in zip(values, places, strict=True)
    ]


def _shown(letter: str) -> str:
    """A letter of a class text; an ellipsis for the first place of learned words, nothing for the others."""
    if ord(letter) < SLOT:
        return letter
    return "… " if ord(letter) == SLOT else ""


def _draw(split: Split, count: int) -> Tensor:
    """Random rows, the same for every report on this split."""
    return torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count]


def _statistics(source: Source, like: Tensor) -> tuple[Tensor, Tensor]:
    pixels = source.spec.preprocessing
    mean, std = (torch.tensor(v, device=like.device).view(-1, 1, 1) for v in (pixels.mean, pixels.std))
    return mean, std


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
