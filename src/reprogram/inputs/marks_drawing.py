"""Marks on pictures: tints, edges, boxes and labels, each a blend ``x' = (1 - a m) x + a m colour``.

Colours follow from a mark's number alone (hues a golden ratio apart), so a picture is drawn the same every time. A
region's edge and the frame around its label have its exact colour; the label's text stands on a plate that is black
or white, whichever is farther from the text's luma. The font is the one inside Pillow.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from reprogram.core.errors import ConfigError, DataError, say
from reprogram.inputs.marks_placement import Label, place
from reprogram.inputs.marks_regions import Region

Colour = tuple[int, int, int]

LEAST_FONT = 8
"""Pixels; digits of the built-in font are told apart from here on."""

MOST_FONT = 32
"""Pixels; what a size that is worked out is kept below."""

LARGEST = 4096
"""Pixels to a side that are drawn on at most."""

GOLDEN = 0.6180339887498949


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How marks look.

    Attributes:
        fill: alpha of the tint over a region; 0.1 is the default of the Set-of-Mark code, which advises 0.4 for people.
        edge: pixels of a region's edge, drawn inside of it; 0 for none. Never more than a 16th of the region's shorter
            side, if that is a pixel or more.
        box: draw the region's bounding box too.
        plate: alpha of the plate behind a label's text, 0.8 in the Set-of-Mark code.
        font: pixels; None for a 22nd of the picture's shorter side, from 12 to 32.
        letters: labels a, b, ..., z, aa, ... in place of 1, 2, ...

    Raises:
        ConfigError: an alpha out of [0, 1], a negative edge, or a font below 8 pixels.
    """

    fill: float = 0.1
    edge: int = 2
    box: bool = False
    plate: float = 0.8
    font: int | None = None
    letters: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.fill <= 1 or not 0 <= self.plate <= 1 or self.edge < 0:
            got = (self.fill, self.plate, self.edge)
            raise ConfigError(say("fill, plate, edge", "must be alphas from 0 to 1, and 0 pixels or more", got))
        if self.font is not None and self.font < LEAST_FONT:
            remedy = "Give the model larger pictures instead."
            raise ConfigError(say("font", f"must be {LEAST_FONT} pixels or more to be legible", self.font, remedy))

    def font_for(self, height: int, width: int) -> int:
        """Pixels of the font on a picture.

        >>> Style().font_for(448, 600), Style().font_for(32, 32), Style(font=9).font_for(32, 32)
        (20, 12, 9)
        """
        return self.font or min(MOST_FONT, max(12, min(height, width) // 22))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """A picture with marks.

    Attributes:
        picture: [3, height, width] uint8; taller than the original if labels went below it.
        table: the region of every mark, by its label.
        labels: where the labels are, in the table's order.
    """

    picture: UInt8[Tensor, " channel height width"]
    table: dict[str, Region]
    labels: tuple[Label, ...]


def mark(picture: UInt8[Tensor, " channel height width"], regions: Sequence[Region], style: Style = Style()) -> Marked:
    """Draw numbered marks.

    Args:
        picture: [3, height, width].
        regions: masks of the picture's size. Number k is the k-th of them.
        style: how.

    Raises:
        DataError: the picture has no pixels or not three channels, or a mask has another size.
    """
    names = tuple(name_of(k, letters=style.letters) for k in range(1, len(regions) + 1))
    drawn, labels = annotate(picture, regions, names, style)
    return Marked(drawn, dict(zip(names, regions, strict=True)), labels)


def annotate(
    picture: UInt8[Tensor, " channel height width"], regions: Sequence[Region], texts: Sequence[str],
    style: Style = Style(), *, first: int = 1,
) -> tuple[Tensor, tuple[Label, ...]]:  # fmt: skip
    """Draw regions with a text each, which may be any.

    Args:
        picture: [3, height, width].
        regions: masks of the picture's size.
        texts: of the labels.
        style: how.
        first: number of the first of them, for its colour.

    Raises:
        DataError: the picture has no pixels or not three channels, or a mask has another size.
    """
    check_picture(picture)
    height, width = picture.shape[-2:]
    for number, region in enumerate(regions):
        if tuple(region.mask.shape) != (height, width):
            need = f"must have the picture's {height} x {width} pixels"
            raise DataError(say(f"regions[{number}]", need, tuple(region.mask.shape)))
    if not regions:
        return picture.clone(), ()
    font = style.font_for(height, width)
    plan = place([r.mask for r in regions], [label_size(text, font) for text in texts])
    canvas = F.pad(picture.float(), (0, plan.width - width, 0, plan.height - height), value=255.0)
    for k in sorted(range(len(regions)), key=lambda i: -regions[i].area):
        _draw_region(canvas[:, :height, :width], regions[k], colour_of(first + k), style)
    _draw_leaders(canvas, plan.labels, first)
    for k, (label, text) in enumerate(zip(plan.labels, texts, strict=True)):
        draw_label(canvas, label, text, colour_of(first + k), font, style.plate)
    return canvas.round_().to(torch.uint8), plan.labels


def check_picture(picture: Tensor) -> None:
    """Refuse what is no picture in colour, or so large that drawing on it would take gigabytes.

    Raises:
        DataError: there are no pixels, not three channels, or more than 4096 pixels to a side.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
        raise DataError(say("picture", "must be [3, height, width] with a pixel at least", tuple(picture.shape)))
    if max(picture.shape) > LARGEST:
        remedy = "Scale it down first: inputs.showing.shown(picture, 1024)."
        raise DataError(say("picture", f"must have at most {LARGEST} pixels to a side", tuple(picture.shape), remedy))


def name_of(number: int, *, letters: bool = False) -> str:
    """The label of the mark with a number, from 1 on.

    >>> name_of(12), name_of(26, letters=True), name_of(27, letters=True), name_of(703, letters=True)
    ('12', 'z', 'aa', 'aaa')
    """
    if not letters:
        return str(number)
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("a") + rest) + name
    return name


def colour_of(number: int) -> Colour:
    """The colour of the mark with a number, from 1 on.

    >>> colour_of(1), colour_of(2)
    ((48, 105, 242), (162, 242, 48))
    """
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.8, 0.95))  # type: ignore[return-value]


def plate_of(colour: Colour) -> Colour:
    """Black behind bright text, white behind dark text; bright is a luma (ITU-R 601) above 128.

    >>> plate_of((255, 255, 0)), plate_of((0, 0, 255))
    ((0, 0, 0), (255, 255, 255))
    """
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 128 else (255, 255, 255)


def label_size(text: str, font: int) -> tuple[int, int]:
    """(width, height) of a label's box: the text's ink, its margin and a frame of one pixel."""
    height, width = glyphs(text, font).shape
    return width + 2 * _margin(font), height + 2 * _margin(font)


@lru_cache(maxsize=4096)
def glyphs(text: str, font: int) -> Float[Tensor, " height width"]:
    """A text's ink, 0 to 1: as wide as it is, and as tall as capital letters and digits of that font are.

    Letters that reach below the line make it taller.
    """
    typeface: Any = ImageFont.load_default(size=font)
    left, top, right, bottom = typeface.getbbox(text or " ")
    top, bottom = min(top, typeface.getbbox("0")[1]), max(bottom, typeface.getbbox("0")[3])
    page = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(page).text((-left, -top), text, fill=255, font=typeface)
    ink = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).view(page.height, page.width)
    return ink.float() / 255


def blend(canvas: Tensor, mask: Tensor, colour: Colour, alpha: float = 1.0) -> None:
    """``x := (1 - a m) x + a m colour``, in place.

    Args:
        canvas: [3, height, width], floats in 0..255.
        mask: [height, width], True or a weight from 0 to 1.
        colour: of the mark.
        alpha: a.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        return
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    weight = alpha * mask[part].float()
    tone = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1)
    canvas[(slice(None), *part)].mul_(1 - weight).add_(weight * tone)


def segment(height: int, width: int, start: tuple[float, float], end: tuple[float, float], wide: float) -> Tensor:
    """[height, width], True within `wide / 2` pixels of the line from (x, y) to (x, y)."""
    y, x = torch.arange(height).view(-1, 1).float(), torch.arange(width).view(1, -1).float()
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-9)
    along = along.clamp(0, 1)
    away = (x - start[0] - along * dx).square() + (y - start[1] - along * dy).square()
    return away <= (wide / 2) ** 2


def draw_label(canvas: Tensor, label: Label, text: str, colour: Colour, font: int, plate: float) -> None:
    """A plate with a frame and a text, in place.

    Args:
        canvas: [3, height, width], floats in 0..255.
        label: where.
        text: what.
        colour: of text and frame.
        font: pixels.
        plate: alpha of the plate.
    """
    part = canvas[:, label.top : label.top + label.height, label.left : label.left + label.width]
    frame = torch.ones(part.shape[-2:], dtype=torch.bool)
    blend(part, frame, plate_of(colour), plate)
    frame[1:-1, 1:-1] = False
    blend(part, frame, colour)
    ink, edge = glyphs(text, font), _margin(font)
    blend(part[:, edge : edge + ink.shape[0], edge : edge + ink.shape[1]], ink, colour)


def edge_of(mask: Bool[Tensor, " height width"], thickness: int) -> Bool[Tensor, " height width"]:
    """The pixels of a region with one outside of it within `thickness` pixels along an axis or a diagonal."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    found = torch.zeros_like(mask)
    if len(rows):
        part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        outside = F.pad((~mask[part]).float()[None, None], (thickness,) * 4, value=1.0)
        found[part] = (F.max_pool2d(outside, 2 * thickness + 1, 1)[0, 0] > 0) & mask[part]
    return found


def _margin(font: int) -> int:
    return 2 + font // 10


def _draw_region(canvas: Tensor, region: Region, colour: Colour, style: Style) -> None:
    left, top, right, bottom = region.box
    edge = min(style.edge, max(1, min(right - left, bottom - top) // 16))  # a small region stays in sight
    if style.fill:
        blend(canvas, region.mask, colour, style.fill)
    if style.edge:
        blend(canvas, edge_of(region.mask, edge), colour)
    if style.box:
        rectangle = torch.zeros_like(region.mask)
        rectangle[top:bottom, left:right] = True
        blend(canvas, edge_of(rectangle, max(1, edge)), colour)


def _draw_leaders(canvas: Tensor, labels: Sequence[Label], first: int) -> None:
    """Lines from labels that stand outside to what they mean, with a dot there; they pass behind labels."""
    height, width = canvas.shape[-2:]
    free = torch.ones(height, width, dtype=torch.bool)
    for label in labels:
        free[label.top : label.top + label.height, label.left : label.left + label.width] = False
    for k, label in enumerate(labels):
        if not label.inside:
            middle = (label.left + label.width / 2, label.top + label.height / 2)
            x, y = label.anchor
            blend(canvas, segment(height, width, middle, (x, y), 1.5) & free, colour_of(first + k))
            blend(canvas, segment(height, width, (x, y), (x, y), 2.5) & free, colour_of(first + k))
